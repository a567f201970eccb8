-- Why: whether a limit holds, since when and why is asked of the catalog by people and pages, not of the process that holds it; and a rule is tried
-- out on what was measured, before it is let loose.
-- throttle_limit: what holds for a database now, as its shipper last said; bytes a second, null: no limit. sent and waited_us only grow while one process lives.
-- throttle: a rule of it. state is a word of `catalog/src/throttle.rs`; past is on which side of its threshold the rule last was (null: not known), so
-- that a start of the service is no crossing.
-- throttle_sample: one row for each database and hour; body holds a look each, as `SECOND:rate,cpu,lag,lag bytes,retained` and `;`. What is empty was not known.

create table throttle_limit (
    database_name text not null primary key references farshore_database (name) on delete cascade,
    bandwidth bigint,
    sent bigint not null,
    waited_us bigint not null,
    node text not null,
    heard_at bigint not null
);

create table throttle (
    database_name text not null references farshore_database (name) on delete cascade,
    rule text not null,
    state text not null,
    since bigint not null,
    why text not null,
    bandwidth bigint,
    notifies integer not null,
    past integer,
    fired_at bigint,
    primary key (database_name, rule)
);

create table throttle_sample (
    database_name text not null references farshore_database (name) on delete cascade,
    hour_us bigint not null,
    body text not null,
    primary key (database_name, hour_us)
);
create index throttle_sample_by_age on throttle_sample (hour_us);
