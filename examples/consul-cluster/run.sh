#!/bin/sh
# Three Consul servers, three stand-in nodes and two gateways on this machine.
# Shows the nodes as both gateways see them and goes on until Ctrl-C; with
# --once it ends there. Ports 10501-10619 of 127.0.0.1 must be free.
#
# Consul: SINGLEGATE_CONSUL=/path/to/consul, or consul in PATH. Needs Go and curl.
set -eu

cd "$(dirname "$0")"
consul=${SINGLEGATE_CONSUL:-$(command -v consul || true)}
if [ ! -x "$consul" ]; then
	echo "run.sh: no Consul: put consul into PATH, or set SINGLEGATE_CONSUL=/path/to/consul" >&2
	exit 1
fi

dir=$(mktemp -d)
pids=

# Everything that was started here, by process id, the last one first.
finish() {
	trap - EXIT INT TERM
	for pid in $pids; do kill "$pid" 2>/dev/null || true; done
	for pid in $pids; do wait "$pid" 2>/dev/null || true; done
	rm -rf "$dir"
}
trap finish EXIT
trap 'exit 0' INT TERM

# start NAME COMMAND…: in the background, its output in a file.
start() {
	name=$1
	shift
	"$@" >"$dir/$name.log" 2>&1 &
	pids="$! $pids"
	echo "  $name: pid $!"
}

# await WHAT COMMAND…: until the command succeeds, a minute at most.
await() {
	what=$1
	shift
	for _ in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.2
	done
	echo "run.sh: still not there after a minute: $what; the logs:" >&2
	tail -n 5 "$dir"/*.log >&2
	exit 1
}

leader() { curl -fsS "http://127.0.0.1:1050$1/v1/status/leader" | grep -q :; }
passing() { test "$(LC_ALL=C "$dir/singlegate" nodes --admin "127.0.0.1:$1" | grep -c ' passing ')" = 3; }

echo "building"
go build -o "$dir/singlegate" ../..
go build -o "$dir/node" ./node

echo "starting"
for i in 1 2 3; do
	start "consul$i" "$consul" agent -server -bootstrap-expect=3 -node="server$i" -data-dir="$dir/consul$i" \
		-bind=127.0.0.1 -client=127.0.0.1 -http-port="1050$i" -server-port="1054$i" -serf-lan-port="1055$i" \
		-serf-wan-port=-1 -dns-port=-1 -grpc-port=-1 -grpc-tls-port=-1 \
		-retry-join=127.0.0.1:10551 -retry-join=127.0.0.1:10552 -retry-join=127.0.0.1:10553
	start "node$i" "$dir/node" "node$i" "127.0.0.1:1060$i" "127.0.0.1:1061$i"
done
for i in 1 2 3; do
	await "a leader for Consul server $i" leader "$i"
	# A server that has just joined may refuse the first registration.
	await "the registration of node$i" "$consul" services register -http-addr="127.0.0.1:1050$i" "nodes/node$i.json"
done
for gateway in a b; do
	start "gateway-$gateway" env SINGLEGATE_CACHE="$dir/$gateway.cache" "$dir/singlegate" run --config "gateway-$gateway.yaml"
done
await "three passing nodes at gateway A" passing 10519
await "three passing nodes at gateway B" passing 10529

echo
echo "gateway A: singlegate nodes --admin 127.0.0.1:10519"
"$dir/singlegate" nodes --admin 127.0.0.1:10519
echo
echo "gateway B: singlegate nodes --admin 127.0.0.1:10529"
"$dir/singlegate" nodes --admin 127.0.0.1:10529
if [ "${1:-}" = --once ]; then exit 0; fi

echo
echo "logs: $dir; Ctrl-C ends it all"
wait
