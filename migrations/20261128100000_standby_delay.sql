-- Why: a standby that is to replay late has what is due, and lacks what is not: without its delay it looks like one that is behind.
-- Microseconds; null of one that is not delayed.

alter table standby add column delay_us bigint;
