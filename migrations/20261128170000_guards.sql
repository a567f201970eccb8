-- Why: in `sync` a process of its own lets commits go and has them wait again; whoever asks whether they wait now has to be told without asking that one.
-- A row is a database whose commits are to be guarded. Phase is a word of `catalog/src/guard.rs`. Exposed is since when commits are not known to have waited, null when they wait or nobody
-- knows since when they do not; told is when a guard last wrote, null when none ever did.

create table guard (
    database_name text primary key,
    node text,
    phase text not null,
    is_exposed bigint not null,
    exposed_since bigint,
    why text,
    trouble text,
    looked_at bigint,
    told_at bigint
);
