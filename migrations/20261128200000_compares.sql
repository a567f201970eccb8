-- Why: a comparison is done by a process that need not be the one that serves the standby. What it wants of that one, and what it was given, has to travel by what both read.
-- A row of standby_hold is a wish: send this standby no more than it was sent, or up to the ceiling. Holder is for people; hold, a random number, says whose answer is whose. The beat rises while the holder lives: whoever serves drops a wish whose beat stands, by its own clock,
-- so no time is kept here. Sent and held_at are the answer: what was sent, and up to where it is sent at most; null until it is held.

create table standby_hold (
    database_name text not null,
    name text not null,
    hold bigint not null,
    holder text not null,
    beat bigint not null,
    ceiling bigint,
    node text,
    sent bigint,
    held_at bigint,
    primary key (database_name, name)
);

-- What comparisons came to: the statement is JSON, and holds names of tables and keys of rows that differ, and no other value of a row.

create table compare (
    id text not null primary key,
    database_name text not null,
    standby text not null,
    verdict text not null,
    began_at bigint not null,
    ended_at bigint not null,
    statement text not null
);

create index compare_by_time on compare (began_at, id);
create index compare_by_database on compare (database_name, began_at, id);
