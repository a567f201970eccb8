-- Why: the first tables of the catalog: what exists, where, and since when.
--
-- One text for SQLite and PostgreSQL. Offsets, bytes and times (microseconds since 1970 UTC) are bigint, yes/no
-- is 0/1, all else is text. A null means "not known". Everything here but activity, node and shipping can be
-- rebuilt from the store.

create table farshore_database (
    name text not null primary key,
    engine text not null,
    added_at bigint not null
);

-- number is a short local stand-in for id in the one table that has a row per commit; it never leaves the catalog.
create table incarnation (
    id text not null primary key,
    number bigint not null unique,
    database_name text not null references farshore_database (name) on delete cascade,
    engine_identity text not null,
    created_at bigint not null,
    parent text,
    reason text not null,
    segment_bytes bigint not null,
    major_version bigint
);
create index incarnation_by_database on incarnation (database_name, created_at, id);

create table branch (
    incarnation text not null references incarnation (id) on delete cascade,
    timeline bigint not null,
    parent_timeline bigint,
    fork_offset bigint,
    first_seen_at bigint not null,
    primary key (incarnation, timeline)
);

create table target (
    database_name text not null references farshore_database (name) on delete cascade,
    store text not null,
    url text not null,
    state text not null,
    stored_timeline bigint,
    stored_offset bigint,
    updated_at bigint not null,
    failure_code text,
    failure_message text,
    failed_at bigint,
    primary key (database_name, store)
);

create table shipping (
    database_name text not null primary key references farshore_database (name) on delete cascade,
    state text not null,
    timeline bigint,
    received bigint,
    stored bigint,
    reported bigint,
    released bigint,
    source_offset bigint,
    retained_bytes bigint,
    seconds_to_full bigint,
    heartbeat_us bigint not null,
    last_contact_at bigint,
    last_stored_commit_at bigint,
    oldest_unstored_commit_at bigint,
    updated_at bigint not null,
    node text
);

-- Half-open and maximal: two ranges of one timeline in one store never touch.
create table journal_range (
    incarnation text not null references incarnation (id) on delete cascade,
    store text not null,
    timeline bigint not null,
    start_offset bigint not null,
    end_offset bigint not null,
    checked_end bigint not null,
    first_sequence bigint not null,
    last_sequence bigint not null,
    primary key (incarnation, store, timeline, start_offset)
);

create table journal_gap (
    incarnation text not null references incarnation (id) on delete cascade,
    store text not null,
    timeline bigint not null,
    start_offset bigint not null,
    end_offset bigint not null,
    reason text not null,
    seen_at bigint not null,
    primary key (incarnation, store, timeline, start_offset, end_offset)
);

create table backup (
    id text not null primary key,
    incarnation text not null references incarnation (id) on delete cascade,
    store text not null,
    timeline bigint not null,
    start_offset bigint not null,
    end_offset bigint,
    started_at bigint not null,
    finished_at bigint,
    bytes bigint,
    stored_bytes bigint,
    state text not null,
    checked bigint not null,
    label text not null,
    bad_pages bigint not null
);
create index backup_by_incarnation on backup (incarnation, started_at, id);

-- latest_us is the latest time_us of this and all earlier commits of the timeline. It rises with the offset even
-- where commit times step back, so "the first commit in log order later than T" is one index look-up.
create table commit_point (
    incarnation_number bigint not null references incarnation (number) on delete cascade,
    timeline bigint not null,
    end_offset bigint not null,
    start_offset bigint not null,
    time_us bigint not null,
    latest_us bigint not null,
    xid bigint not null,
    primary key (incarnation_number, timeline, end_offset)
);
create index commit_point_by_latest on commit_point (incarnation_number, timeline, latest_us, end_offset);
create index commit_point_by_xid on commit_point (incarnation_number, xid, timeline, end_offset);

create table mark (
    incarnation text not null references incarnation (id) on delete cascade,
    kind text not null,
    name text not null,
    timeline bigint not null,
    at_offset bigint not null,
    time_us bigint not null,
    note text not null,
    held_until bigint,
    primary key (incarnation, kind, name, timeline, at_offset)
);
create index mark_by_position on mark (incarnation, timeline, at_offset);

create table activity (
    number bigint not null primary key,
    at_us bigint not null,
    who text not null,
    what text not null,
    database_name text,
    detail text not null
);

create table node (
    name text not null primary key,
    version text not null,
    started_at bigint not null,
    heartbeat_at bigint not null
);
