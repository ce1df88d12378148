#!/bin/sh
# See that R and what packages.txt lists are there; as root on Debian, install what is missing.
set -eu
cd "$(dirname "$0")"

# R is asked, not dpkg: packages that came from elsewhere will do. Debian's names are lower case.
installed=
if command -v Rscript >/dev/null; then
  installed=$(Rscript --vanilla -e 'cat(tolower(rownames(installed.packages())), sep = "\n")')
fi
there() {
  case $1 in
    r-base-core) command -v Rscript >/dev/null ;;
    # Debian's RcppParallel, on which OpenMx and Stan rest, asks dpkg-architecture when it is loaded
    # and does not load without; no package depends on it. Elsewhere it is not asked for.
    dpkg-dev) ! command -v dpkg >/dev/null || command -v dpkg-architecture >/dev/null ;;
    r-cran-*) printf '%s\n' "$installed" | grep -qx "${1#r-cran-}" ;;
    *) command -v "$1" >/dev/null ;;
  esac
}
missing=
for package in $(cat packages.txt); do
  there "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "R: these Debian packages, or the same from elsewhere, are missing:$missing" >&2
  echo "R: install them: sudo apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
echo "R: installing$missing"
export DEBIAN_FRONTEND=noninteractive
retry='-o Acquire::Retries=3'
if ! apt-get $retry update -qq ||
  ! apt-get $retry install -y -qq --no-install-recommends $missing >/dev/null; then
  echo "R: apt-get failed, as told above; nothing that needs R was run." >&2
  echo "R: when it works again, or with the packages from elsewhere, run the same command." >&2
  exit 1
fi
