-- Why: a base backup that a verification found to be not as it was stored was told to nobody: windows began with it, and older ones were let go for it. bad_at is when
-- that was found, null while nothing speaks against it; that nobody opened it (checked = 0) is another thing. It is in the index from which backups are counted.

alter table backup add column bad_at bigint;
drop index backup_by_state;
create index backup_by_state on backup (incarnation, state, finished_at, checked, bad_pages, bad_at);
