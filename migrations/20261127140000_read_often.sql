-- Why: how work last went, of each kind and database, is read once a second, and was read from every job with its result; the drills of a month were read row by
-- row to be counted. These hold all that is asked for: the newest job of each kind, database and state, those few that were done and are no good news, and how
-- the drills of each day ended.
create index job_by_outcome on job (kind, database_name, state, finished_at);
create index job_of_bad_news on job (state, kind, database_name, finished_at)
    where (result like '%"sound":false%' or result like '%"verdict":"breached"%');
create index drill_by_day on drill (began_at, verdict);
