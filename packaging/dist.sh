#!/bin/sh
# Makes what is given away, in DIST (dist): for each of ARCHS a static binary,
# its tar.gz, .deb and .rpm and its bill of materials, and SHA256SUMS. The same
# sources, VERSION, SOURCE_DATE_EPOCH and Go give the same bytes, wherever they
# lie and whenever they are built.
set -eu
umask 022
export LC_ALL=C TZ=UTC
cd "$(dirname "$0")/.."

GO=${GO:-go}
ARCHS=${ARCHS:-amd64 arm64 loong64 riscv64}
DIST=${DIST:-dist}
mkdir -p "$DIST"
DIST=$(cd "$DIST" && pwd)

# git runs git on these sources, not on a repository that they happen to lie in.
git_here() { [ -e .git ] && git "$@" 2>/dev/null; }

# The version: that of a tag, with the commits since; before the first tag that
# of the sources, marked as what comes before it.
version_of_sources() {
	if tag=$(git_here describe --tags --match 'v[0-9]*' --dirty); then
		tag=${tag#v}
		case "$tag" in
		*-*) echo "${tag%%-*}+$(echo "${tag#*-}" | tr - .)" ;;
		*) echo "$tag" ;;
		esac
		return
	fi
	base=$(sed -n 's/^var version = "\(.*\)"$/\1/p' internal/cli/version.go)
	commit=$(git_here log -1 --date=format:%Y%m%d --format=git%cd.%h --abbrev=12) || commit=
	[ -z "$(git_here status --porcelain --untracked-files=no)" ] || commit=$commit.dirty
	echo "$base${commit:+~$commit}"
}
VERSION=${VERSION:-$(version_of_sources)}
case "$VERSION" in
*[!0-9A-Za-z.+~]* | [!0-9]* | '')
	echo "dist: VERSION is \"$VERSION\", expected a digit, then digits, letters, dots, + and ~: other characters mean something in package names" >&2
	exit 1
	;;
esac
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git_here log -1 --format=%ct || echo 315532800)}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# tool runs a tool of internal/tools/dist, and shows what it says if it fails.
tool() {
	$GO tool -modfile=internal/tools/dist/go.mod "$@" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		exit 1
	}
}

# What lies beside the binary: the same in every package.
doc=$work/doc
mkdir -p "$doc"
cp LICENSE CHANGELOG.md README.md README.zh-CN.md single_address.md single_address.zh-CN.md "$doc"
cp -R docs examples "$doc"
rm -f "$doc"/examples/*/cert.pem "$doc"/examples/*/key.pem
find "$doc" -name node_modules -prune -exec rm -rf {} +
find "$doc" -type d -exec chmod 755 {} +
find "$doc" -type f -exec chmod 644 {} +
find "$doc" -name '*.sh' -exec chmod 755 {} +
find "$doc" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

build() { # arch
	name=singlegate_${VERSION}_linux_$1
	dir=$work/$1/$name
	mkdir -p "$dir"
	GOOS=linux GOARCH=$1 GOAMD64=v1 GOARM64=v8.0 GORISCV64=rva20u64 CGO_ENABLED=0 GOFLAGS= \
		$GO build -trimpath -buildvcs=false -ldflags="-s -w -buildid= -X singlegate/internal/cli.version=$VERSION" -o "$dir/singlegate" .
	touch -d "@$SOURCE_DATE_EPOCH" "$dir/singlegate"
	tool cyclonedx-gomod bin -json -noserial -notimestamp -std -version "$VERSION" -output "$DIST/$name.cdx.json" "$dir/singlegate"

	export NFPM_VERSION="$VERSION" NFPM_BINARY="$dir/singlegate" NFPM_DOC="$doc"
	for kind in deb rpm; do
		case "$kind/$1" in
		rpm/loong64) NFPM_ARCH=loongarch64 ;; # nfpm knows RPM's names of the others
		*) NFPM_ARCH=$1 ;;
		esac
		export NFPM_ARCH
		tool nfpm package --config packaging/nfpm.yaml --packager $kind --target "$DIST/"
	done

	cp -R "$doc/." "$dir"
	cp packaging/singlegate.yaml packaging/singlegate.service packaging/singlegate.socket packaging/sysusers.conf "$dir"
	chmod -R u=rwX,go=rX "$dir"
	tar -C "$work/$1" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=ustar -cf - "$name" |
		gzip -9n >"$DIST/$name.tar.gz"
}

rm -f "$DIST"/singlegate[_-]* "$DIST/SHA256SUMS"
for arch in $ARCHS; do
	echo "dist: $VERSION linux/$arch"
	build "$arch"
done
(cd "$DIST" && sha256sum singlegate[_-]* >SHA256SUMS)
