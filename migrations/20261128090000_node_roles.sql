-- Why: nodes of one catalog do different work, and whoever waits for some asks which of them would do it.
-- Words of `catalog/src/node.rs`, with a space between them; of a node of an earlier version: nothing.

alter table node add column roles text not null default '';
