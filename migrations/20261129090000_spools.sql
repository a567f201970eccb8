-- Why: a spool is the service's own, and whoever asks how it stands must be told without asking that service.
-- A row is a database that has one. State is a word of `catalog/src/spool.rs`; timeline, starts_at and ends_at are the row of log segments that it holds, null where there is none; told_at is when its service last said so.

create table spool (
    database_name text primary key,
    node text,
    state text not null,
    bytes bigint,
    limit_bytes bigint not null,
    timeline bigint,
    starts_at bigint,
    ends_at bigint,
    trouble text,
    told_at bigint not null
);
