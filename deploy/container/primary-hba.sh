#!/bin/sh
# Lets the superuser of this trial replicate from the other containers, by password.
echo "host replication postgres all scram-sha-256" >>"$PGDATA/pg_hba.conf"
