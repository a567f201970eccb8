-- Why: a row for each commit cost a service more than compressing the log that brought it, and filled a disk with its indexes. Some
-- hundred commits that follow one another in the log are one row now. What was recorded so far is forgotten with the ranges that it
-- belongs to, so that the next bring-up reads both from the store again.

drop table commit_point;
delete from journal_range;

-- first_end, last_end: the ends of the first and of the last commit. newest_us: the latest time of its commits. latest_us: the latest
-- time of all commits of the timeline up to last_end; it rises with the offset even where commit times step back, so "the first
-- block that holds a commit later than T" is one index look-up.
create table commit_block (
    incarnation_number bigint not null references incarnation (number) on delete cascade,
    timeline bigint not null,
    last_end bigint not null,
    first_end bigint not null,
    commits bigint not null,
    newest_us bigint not null,
    latest_us bigint not null,
    body bytea not null,
    primary key (incarnation_number, timeline, last_end)
);
create index commit_block_by_latest on commit_block (incarnation_number, timeline, latest_us, last_end);

-- The groups of transaction ids that a block holds some of.
create table commit_block_group (
    incarnation_number bigint not null references incarnation (number) on delete cascade,
    xid_group bigint not null,
    timeline bigint not null,
    last_end bigint not null,
    primary key (incarnation_number, xid_group, timeline, last_end)
);
