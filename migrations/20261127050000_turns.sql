-- Why: whose turn it is among databases is asked each second by every service: a database whose last job was begun longest ago comes first.
-- Without an index that question reads every job of the last 90 days.

create index job_by_begin on job (database_name, started_at);
