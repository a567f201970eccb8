-- Why: of a sealed backup that was found in the store without a private key nobody knows whether its pages are damaged. How many there are is counted beside the
-- damaged ones, for hundreds of databases, from an index alone.

drop index backup_by_state;
create index backup_by_state on backup (incarnation, state, finished_at, checked, bad_pages);
