-- Why: a page of five hundred databases read every base backup there is, and a list of one database's drills every drill, to show some of them. With these
-- the oldest base backup that a stretch of log leads on from is one look-up, and how many there are and which ended last is read from an index alone.

create index backup_by_end on backup (incarnation, store, timeline, end_offset, id);
create index backup_by_state on backup (incarnation, state, finished_at, bad_pages);
