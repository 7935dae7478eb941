#!/usr/bin/env bash
# Run the tests, all but tests/hosting, under every Python of Debian's unstable: `make test-pythons`.
#
# The Pythons live in a chroot, build/pythons/root. The first run makes it with debootstrap, later runs update it.
# Each Python has an environment there, and its log is build/pythons/NAME.log. The mounts and processes are in
# namespaces of this script: they end with it, however it ends, and no `rm -rf` outside can reach through a mount.
#
#   PYTHONS="3.14 pypy3.11"   which Pythons; without it, each one found in the chroot
#   TESTS="tests/worker -x"   arguments for pytest; without it, all tests but tests/hosting
#   MIRROR=http://...         a mirror of Debian; without it, debootstrap's own default
set -euo pipefail
cd "$(dirname "$0")/.."

readonly DIRECTORY=$PWD/build/pythons
readonly ROOT=$DIRECTORY/root
readonly MIRROR=${MIRROR:-}
readonly TESTS=${TESTS:-"--ignore=tests/hosting"}

# What the tests call, and what builds the packages that have no wheel for a new Python or for PyPy.
readonly PACKAGES=(ca-certificates curl g++ gcc make openssl procps)

fail() {
  echo "test-pythons: $*" >&2
  exit 1
}

check_machine() {
  local program
  [ "$(id -u)" = 0 ] || fail "needs root, for the chroot: sudo make test-pythons"
  for program in debootstrap unshare git tar; do
    command -v "$program" > /dev/null || fail "$program is missing: apt-get install debootstrap util-linux git tar"
  done
  unshare --mount true 2> /dev/null || fail "unshare(2) is not allowed here: run it on a machine or in a VM, not in a container"
}

inside() {
  # A clean environment: the caller's PYTHON* and PIP_* name paths that the chroot does not have.
  env -i HOME=/root LANG=C.UTF-8 PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
    PIP_PREFER_BINARY=1 PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} \
    chroot "$ROOT" "$@"
}

make_chroot() {
  [ -e "$ROOT.made" ] && return
  rm -rf "$ROOT"
  mkdir -p "$ROOT"
  echo "test-pythons: making the chroot with debootstrap, log: $DIRECTORY/chroot.log"
  debootstrap --variant=minbase unstable "$ROOT" ${MIRROR:+"$MIRROR"} > "$DIRECTORY/chroot.log" 2>&1 \
    || fail "debootstrap failed: $(tail -n 1 "$DIRECTORY/chroot.log")"
  touch "$ROOT.made"
}

mount_file_systems() {
  mount -t proc proc "$ROOT/proc"
  mount --bind /dev "$ROOT/dev"
  mount -t tmpfs -o mode=1777 tmpfs "$ROOT/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$ROOT/dev/pts"
  mount --bind "$ROOT/dev/pts/ptmx" "$ROOT/dev/ptmx"
}

update_chroot() {
  # The machine's own way to the network counts in the chroot, too.
  cp -L /etc/resolv.conf /etc/hosts "$ROOT/etc/"
  apt-config dump 2> /dev/null | grep -E '^Acquire::(Check|http|https)[^ ]* ".+";' > "$ROOT/etc/apt/apt.conf.d/99machine" || true
  echo "test-pythons: installing the Pythons, log: $DIRECTORY/chroot.log"
  {
    inside apt-get update -q
    inside apt-get dist-upgrade -y -q --no-install-recommends
    local pythons
    pythons=$(inside apt-cache search --names-only '^(python3\.[0-9]+|pypy3)-venv$' | cut -d' ' -f1)
    # shellcheck disable=SC2086 # one word a package
    inside apt-get install -y -q --no-install-recommends "${PACKAGES[@]}" $pythons ${pythons//-venv/-dev}
  } >> "$DIRECTORY/chroot.log" 2>&1 || fail "apt-get failed: $(tail -n 1 "$DIRECTORY/chroot.log")"
  if [ -e /etc/ssl/certs/ca-certificates.crt ]; then
    cp /etc/ssl/certs/ca-certificates.crt "$ROOT/etc/ssl/certs/"
  fi
}

copy_source() {
  rm -rf "$ROOT/ostler"
  mkdir "$ROOT/ostler"
  # A tracked file that has been deleted is not there to be read.
  git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard \
    | tar --create --null --files-from=- --ignore-failed-read 2> /dev/null \
    | tar --extract --directory="$ROOT/ostler" --no-same-owner
}

# Each Python of the chroot, as its file's name without "python": 3.14, 3.14t, pypy3.11.
find_pythons() {
  find "$ROOT/usr/bin" "$ROOT/usr/local/bin" -regextype egrep -regex '.*/(python|pypy)3\.[0-9]+t?' -printf '%f\n' \
    | sed 's/^python//' | sort --version-sort --unique
}

# Test one Python. The last line that pytest printed is the summary.
test_python() {
  local name=$1 log=$DIRECTORY/$1.log python=$1 venv=/venvs/$1
  [[ $name == pypy* ]] || python=python$name
  echo "test-pythons: $name, log: $log"
  if ! {
    # After an upgrade in the chroot the environment is made anew: it was made for the version before.
    inside "$venv/bin/python" -c 'import sys; sys.exit(sys.version != open(sys.prefix + "/version").read())' \
      || { inside "$python" -m venv --clear "$venv" \
        && inside "$venv/bin/python" -c 'import sys; open(sys.prefix + "/version", "w").write(sys.version)'; }
    inside "$venv/bin/python" -m pip install --quiet --editable '/ostler[test]'
  } > "$log" 2>&1; then
    summary+=("$(printf '%-10s not installed: %s' "$name" "$(grep -iE 'error' "$log" | tail -n 1)")")
    return 1
  fi
  local status=0
  # shellcheck disable=SC2086 # arguments for pytest
  inside sh -c 'cd /ostler && exec "$0" -m pytest -n 2 --dist loadfile "$@"' "$venv/bin/python" $TESTS < /dev/null >> "$log" 2>&1 || status=$?
  summary+=("$(printf '%-10s %s' "$name" "$(tail -n 1 "$log" | tr -d =)")")
  return "$status"
}

# Run this script again in namespaces of its own, and exit with its status. unshare(1) ignores SIGTERM; when it is
# killed, its child is, too, and with that, the first process of its namespace, every other.
run_in_namespaces() {
  local namespaces status=0
  trap 'kill -KILL "$namespaces"; { wait "$namespaces" || true; } 2> /dev/null' HUP INT TERM
  # A shell's background process ignores SIGINT, and the tests would inherit that.
  env --default-signal=INT,QUIT \
    unshare --mount --propagation private --pid --fork --kill-child "tools/$(basename "$0")" --in-namespaces &
  namespaces=$!
  wait "$namespaces" || status=$?
  exit "$status"
}

main() {
  if [ "${1:-}" != --in-namespaces ]; then
    check_machine
    run_in_namespaces
  fi
  trap 'exit 130' INT TERM  # as the first process of its namespace it has no defaults
  make_chroot
  mount_file_systems
  update_chroot
  copy_source
  local failed=0 name summary=()
  for name in ${PYTHONS:-$(find_pythons)}; do
    test_python "$name" || failed=1
  done
  echo
  printf '%s\n' "${summary[@]}"
  exit "$failed"
}

main "$@"
