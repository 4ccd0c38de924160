#!/bin/sh
# Gets the peers that Debian packages: nginx with its module for TCP, and HAProxy.
# They are never started as services. It is quick when they are there. Caddy and
# fabio are built by the bench itself, where their modules can be had. What is
# missing is named, and the bench goes on without.
set -u

has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

packages=
has nginx || packages="$packages nginx-light"
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || packages="$packages libnginx-mod-stream"
has haproxy || packages="$packages haproxy"
[ -n "$packages" ] || exit 0

if ! has apt-get || [ "$(id -u)" -ne 0 ]; then
	echo "setup: not root on Debian: install these with the system's own tools:$packages" >&2
	exit 0
fi
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM

# Installed services must not start.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$log" "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
fi
echo "setup: installing$packages" >&2
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of names
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends $packages; } >"$log" 2>&1; then
	echo "setup: the packages cannot be had; the bench goes on without:$packages" >&2
	tail -n 4 "$log" | sed -E 's#[a-z+]+://[^[:space:]]+#(address)#g; s/^/  /' >&2
fi
exit 0
