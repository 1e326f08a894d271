#!/bin/sh
# Writes .env for docker compose: a secret between gateway and Triton, and one API token for any account.
# sh docker/env.sh          for a host with a GPU
# sh docker/env.sh --cpu    for a host without one
# --grpc as well            publishes the gateway's gRPC port too (docs/clients.md)
set -eu
files=docker-compose.yml
grpc=
for option; do
	case "$option" in
	--cpu) files=docker-compose.yml:docker-compose.cpu.yml ;;
	--grpc) grpc=:docker-compose.grpc.yml ;;
	*) echo "usage: sh docker/env.sh [--cpu] [--grpc]" >&2 && exit 2 ;;
	esac
done
if [ -e .env ]; then
	echo ".env is there already; remove it for new secrets" >&2
	exit 1
fi
sh "$(dirname "$0")/check.sh"
random() { od -An -v -tx1 -N24 /dev/urandom | tr -d ' \n'; }
token=$(random)
umask 077
cat >.env <<END
COMPOSE_FILE=$files$grpc
TRITON_SECRET=$(random)
GATEWAY_API_TOKENS=*:$token
LOADTEST_TOKEN=$token
END
echo "wrote .env; its LOADTEST_TOKEN is the API token, for any account"
