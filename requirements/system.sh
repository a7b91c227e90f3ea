#!/bin/sh
# Install the Debian packages of requirements/debian.txt that are missing; asks first, unless CI=true.
set -eu
cd "$(dirname "$0")"

wanted=$(sed 's/#.*//' debian.txt | tr -s '[:space:]' ' ')
missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done

if [ -z "$missing" ]; then
    echo "system: nothing to install (requirements/debian.txt:${wanted:- no package})" >&2
    exit 0
fi
echo "system: missing:$missing" >&2
if [ "${CI:-}" != true ]; then
    printf 'Install them with apt-get now? [y/N] ' >&2
    read -r answer || answer=
    case $answer in
    y | Y | yes) ;;
    *)
        echo "system: nothing was installed; tests that need them are skipped" >&2
        exit 1
        ;;
    esac
fi
become=
[ "$(id -u)" = 0 ] || become=sudo
$become apt-get update -qq
# shellcheck disable=SC2086 # package names, one argument each
DEBIAN_FRONTEND=noninteractive $become apt-get install -y --no-install-recommends $missing
