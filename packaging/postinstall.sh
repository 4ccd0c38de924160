#!/bin/sh
# After installing: the user, and whose the config is. Nothing is started or
# enabled: systemctl enable --now singlegate.
set -e
case "$1" in
configure) first=${2:+no} ;;        # Debian: the version before
1) first= ;;                        # RPM: how many versions there are
[2-9]) first=no ;;
*) exit 0 ;;
esac

if ! getent passwd singlegate >/dev/null 2>&1; then
	if command -v systemd-sysusers >/dev/null 2>&1; then
		systemd-sysusers singlegate.conf
	else
		useradd --system --user-group --home-dir /var/lib/singlegate --no-create-home --shell /usr/sbin/nologin singlegate
	fi
fi
# As the packages have them, which RPM may put back with an upgrade; what was
# given to another group stays.
for file in /etc/singlegate /etc/singlegate/singlegate.yaml; do
	if [ "$(stat -c %G "$file" 2>/dev/null)" = root ]; then
		chgrp singlegate "$file"
		chmod g=rX,o= "$file"
	fi
done
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || true
	if [ -n "$first" ]; then
		systemctl try-restart singlegate.service || true
	fi
fi
