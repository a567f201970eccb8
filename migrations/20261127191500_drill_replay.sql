-- Why: what a recovery would take now is reckoned from how long drills replayed how much log. That stands in their statements, which are long and not read for it.
-- Null: recorded by an earlier build, or not come to.

alter table drill add column replay_us bigint;
alter table drill add column replay_bytes bigint;
