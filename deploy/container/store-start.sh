#!/bin/sh
# The S3 server, with the one key that farshore has.
set -eu
key=$(cat /run/secrets/store)
cat >/tmp/s3.json <<JSON
{"identities":[{"name":"farshore","credentials":[{"accessKey":"farshore","secretKey":"$key"}],"actions":["Admin","Read","Write","List"]}]}
JSON
exec weed server -dir=/data -s3 -s3.config=/tmp/s3.json -s3.port=8333
