-- Why: who did what must not be changed, removed or put in another order without its being found.
-- Each entry holds a digest of itself and of the entry before it. activity_head is the end of the chain: whoever appends takes its row first, so that
-- no two entries follow the same one. Entries of before have no digest until the next one is appended, which takes them into the chain as they stand.

alter table activity add column former text;
alter table activity add column digest text;

create table activity_head (
    one bigint not null primary key,
    number bigint not null,
    digest text not null
);
insert into activity_head (one, number, digest) select 1, coalesce(max(number), 0), '' from activity;
