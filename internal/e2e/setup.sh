#!/bin/sh
# Gets what the end-to-end tests need and this machine lacks: Chromium, Node.js,
# OpenSSL, curl, HAProxy, testssl.sh, rpm, strace, two fonts, the Node modules of
# package.json, the servers Prosody, ejabberd and mosquitto and Python's websockets
# (the tests run them on loopback, with their own configuration), and a Consul,
# which takes minutes to build the first time. It is quick when everything is there. What cannot be had is named,
# and its tests skip; with CI=true that is a failure.
set -u
cd "$(dirname "$0")" || exit 1

missing=0
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'exit 1' HUP INT TERM

lacks() {
	echo "setup: $*" >&2
	missing=1
}

# quietly runs a command and shows the end of what it said if it fails, without
# the addresses in it.
quietly() {
	"$@" >"$log" 2>&1 && return 0
	code=$?
	echo "setup: \"$*\" failed with $code; the end of its output:" >&2
	tail -n 8 "$log" | sed -E 's#[a-z+]+://[^[:space:]]+#(address)#g; s#([A-Za-z0-9-]+\.)+[A-Za-z]{2,}#(name)#g; s/^/  /' >&2
	return "$code"
}

PATH=$PATH:/usr/sbin:/sbin # where Debian puts servers, and not everybody looks
export PATH

has() { command -v "$1" >/dev/null 2>&1; }
has_chromium() { has chromium || has chromium-browser || has google-chrome; }
has_chinese_font() { has fc-list && [ -n "$(fc-list :lang=zh-cn 2>/dev/null)" ]; }
has_websockets() { /usr/bin/python3 -c 'import websockets' 2>/dev/null; } # Debian's, whatever comes first in PATH

# The Debian packages of what is not there.
packages=
has_chromium || packages="$packages chromium"
has openssl || packages="$packages openssl"
has curl || packages="$packages curl"
has node || packages="$packages nodejs"
has npm || packages="$packages npm"
has prosody || packages="$packages prosody"
has ejabberdctl || packages="$packages ejabberd"
has mosquitto || packages="$packages mosquitto"
has haproxy || packages="$packages haproxy"
has testssl || packages="$packages testssl.sh bsdextrautils dnsutils"
has rpm || packages="$packages rpm"
has strace || packages="$packages strace"
has_websockets || packages="$packages python3 python3-websockets"
[ -e /etc/ssl/certs/ca-certificates.crt ] || [ ! -e /etc/debian_version ] || packages="$packages ca-certificates"
if [ -n "$packages" ] && ! has_chinese_font; then
	packages="$packages fonts-dejavu-core fonts-wqy-microhei fontconfig" # small: legible screenshots
fi

install_packages() {
	if ! has apt-get || [ "$(id -u)" -ne 0 ]; then
		echo "setup: not root on Debian: install these with the system's own tools:$packages" >&2
		return 1
	fi
	# Installed services must not start.
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		trap 'rm -f "$log" "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
	fi
	echo "setup: installing$packages" >&2
	export DEBIAN_FRONTEND=noninteractive
	quietly apt-get -q update
	# shellcheck disable=SC2086 # a list of names
	quietly apt-get -q install -y --no-install-recommends $packages
}

[ -z "$packages" ] || install_packages
has_chromium || lacks "chromium is missing: the browser tests skip"
has openssl || lacks "openssl is missing: the tests of the examples skip"
has curl || lacks "curl is missing: the tests that run it skip"
for server in prosody ejabberdctl mosquitto; do
	has "$server" || lacks "$server is missing: the tests with that server skip"
done
has haproxy || lacks "haproxy is missing: the test of the example behind a balancer skips"
has testssl || lacks "testssl is missing: the test of TLS by testssl.sh skips"
has rpm || lacks "rpm is missing: the test of its package skips"
has strace || lacks "strace is missing: the test of system calls skips"
has_websockets || lacks "Python's websockets is missing: the tests with a Python server skip"

# The Node modules, unless those of this very package-lock.json are there.
install_modules() {
	stamp=node_modules/.setup
	[ -e "$stamp" ] && cmp -s package-lock.json "$stamp" && return 0
	quietly npm ci --no-audit --no-fund --ignore-scripts && cp package-lock.json "$stamp"
}

if ! has node || ! has npm; then
	lacks "node or npm is missing: the tests with JavaScript clients skip"
elif [ "$(node -p 'parseInt(process.versions.node)')" -lt 20 ]; then
	lacks "node is $(node --version), and 20 or newer is needed: the tests with JavaScript clients skip"
elif ! install_modules; then
	lacks "the Node modules of package.json are missing: the tests with JavaScript clients skip"
fi

# Consul, of the version in internal/realconsul: built once and kept in the user's
# cache folder, where the tests look for it. SINGLEGATE_CONSUL names another one.
quietly env CI=true "${GO:-go}" test -count=1 -timeout 15m -run '^TestBinary$' ../consultest ||
	lacks "Consul could not be built: the tests with Consul skip"

if [ "$missing" -ne 0 ]; then
	[ "${CI:-}" != true ] || exit 1
	echo "setup: going on without" >&2
fi
exit 0
