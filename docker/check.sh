#!/bin/sh
# Checks that docker compose can run the files of this project, before anything is written or created.
set -eu
refuse() {
	echo "$1" >&2
	exit 1
}
# Whether version $1 (such as 20.10.24+dfsg1 or v2.24.4-desktop.1) is at least $2 (such as 20.10.0).
at_least() {
	printf '%s\n%s\n' "${1#v}" "$2" | awk -F '[^0-9]+' '
		{ for (part = 1; part <= 3; part++) version[NR, part] = $part + 0 }
		END {
			for (part = 1; part <= 3; part++)
				if (version[1, part] != version[2, part]) exit version[1, part] < version[2, part]
		}'
}
command -v docker >/dev/null ||
	refuse "docker was not found; install Docker Engine 20.10 or newer with Compose 2.24.4 or newer (https://docs.docker.com/engine/install/)"
engine=$(docker version --format '{{.Server.Version}}' 2>/dev/null) && [ -n "$engine" ] ||
	refuse "docker reaches no engine; start Docker, or check with \`docker info\` that you may use it and that DOCKER_HOST is right"
at_least "$engine" 20.10.0 ||
	refuse "this is Docker Engine $engine, and 20.10 or newer is needed; upgrade it (https://docs.docker.com/engine/install/)"
compose=$(docker compose version --short 2>/dev/null) && [ -n "$compose" ] ||
	refuse "docker has no compose plugin; install Compose 2.24.4 or newer (https://docs.docker.com/compose/install/)"
at_least "$compose" 2.24.4 ||
	refuse "this is Docker Compose $compose, and 2.24.4 or newer is needed; upgrade it (https://docs.docker.com/compose/install/)"
