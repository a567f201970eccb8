-- Why: a standby that takes a journal for its primary is known to whoever serves it and to nobody else; how far it is has to be asked without asking that one.
-- A row is a standby of a database by the name that it gives itself. Offsets are of its timeline; state is a word of `catalog/src/standby.rs`, since when it is so. Behind is how long ago
-- the journal reached what the standby has not replayed yet, in microseconds: 0 when it has all, null when that is not known.
-- No reference to a database: who serves a journal need not ship it, and then the catalog has no row of it.

create table standby (
    database_name text not null,
    name text not null,
    node text not null,
    login text not null,
    address text not null,
    store text not null,
    incarnation text not null,
    timeline bigint not null,
    sent bigint not null,
    written bigint not null,
    flushed bigint not null,
    applied bigint not null,
    end_offset bigint not null,
    state text not null,
    since bigint not null,
    problem text,
    behind_us bigint,
    heard_at bigint not null,
    primary key (database_name, name)
);

-- Of which incarnation a standby's copy is that does not say so itself: the one that it was let have first, until somebody says that this is over. Written before it gets anything.

create table standby_binding (
    database_name text not null,
    name text not null,
    incarnation text not null,
    bound_at bigint not null,
    primary key (database_name, name)
);
