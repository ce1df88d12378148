#!/bin/sh
# See that what r/packages.txt lists is installed; as root on Debian, install what is missing.
set -eu
cd "$(dirname "$0")"
missing=
for package in $(cat packages.txt); do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
    missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "These Debian packages are missing:$missing" >&2
  echo "Install them: sudo apt-get install --no-install-recommends$missing" >&2
  exit 1
fi
echo "installing$missing"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
