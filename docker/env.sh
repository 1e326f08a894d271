#!/bin/sh
# Writes .env for docker compose: a secret between gateway and Triton, and one API token for any account.
# sh docker/env.sh          for a host with a GPU
# sh docker/env.sh --cpu    for a host without one
set -eu
files=docker-compose.yml
case "${1:-}" in
'') ;;
--cpu) files=docker-compose.yml:docker-compose.cpu.yml ;;
*) echo "usage: sh docker/env.sh [--cpu]" >&2 && exit 2 ;;
esac
if [ -e .env ]; then
	echo ".env is there already; remove it for new secrets" >&2
	exit 1
fi
sh "$(dirname "$0")/check.sh"
random() { od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n'; }
token=$(random)
umask 077
cat >.env <<END
COMPOSE_FILE=$files
TRITON_SECRET=$(random)
GATEWAY_API_TOKENS=*:$token
LOADTEST_TOKEN=$token
END
echo "wrote .env; its LOADTEST_TOKEN is the API token, for any account"
