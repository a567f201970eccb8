-- Why: a page of all databases says of each when it was last proved, every two seconds; statements are long, and their table is not to be read for it.

create index drill_by_verdict on drill (database_name, incarnation, verdict, began_at);
