-- Why: which incarnation is the current one is decided by the numbers that a store gives them, and never by clocks: a machine
-- whose clock was behind founds a later incarnation with an earlier time. Null means "recorded before the number was kept";
-- the next bring-up from the store fills it in.

alter table incarnation add column record_number bigint;
