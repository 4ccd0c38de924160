#!/bin/sh
# Before the package goes for good; not when another version takes its place.
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;;
esac
if [ -d /run/systemd/system ]; then
	systemctl disable --now singlegate.service singlegate.socket >/dev/null 2>&1 || true
fi
