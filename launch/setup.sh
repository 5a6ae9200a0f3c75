#!/usr/bin/env bash
# Installs what is missing to build, test and run Tessera on Debian 12. Safe to repeat: when nothing is missing it uses no
# network and no root, and takes well under a second.
#
#   launch/setup.sh [build] [tests] [torch] [corpus-tools] [slurm] [all]        (default: build corpus-tools torch)
#
#   build         compiler, CMake and the libraries that Tessera links (apt-get)
#   tests         GoogleTest, Google Benchmark, clang-format (apt-get); promtool, unpacked under .deps/tools
#   torch         LibTorch from PyPI's CPU-loadable wheels, unpacked once per machine and linked from .deps/site
#   corpus-tools  what data/corpora/*.sh need to fetch and decode their corpora (apt-get)
#   slurm         a Slurm to play with (launch/slurm_playground.sh)
#
# The unpacked wheels are shared by all clones: $TESSERA_DEPS, or ~/.cache/tessera/deps.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps
cache=${TESSERA_DEPS:-${XDG_CACHE_HOME:-${HOME:-$deps}/.cache}/tessera/deps}

build_packages=(g++ make cmake ninja-build ccache mold pkg-config git ca-certificates libopenmpi-dev openmpi-bin
  libzmq3-dev cppzmq-dev libcapnp-dev capnproto prometheus-cpp-dev nlohmann-json3-dev libtomlplusplus-dev libcli11-dev
  libspdlog-dev libzstd-dev libxxhash-dev libsodium-dev libssl-dev libsentencepiece-dev libncurses-dev)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev clang-format python3 python3-xxhash)
torch_packages=(python3 unzip ca-certificates)
slurm_packages=(slurm-wlm munge)

# name, version, SHA-256 of the wheel. The 13.0 line of the two small ones is what this torch was built for.
wheels=(
  "torch 2.11.0 7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a"
  "nvidia-cuda-runtime 13.0.96 7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548"
  "nvidia-cuda-cupti 13.0.85 4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8"
)
site_name=site-torch-2.11.0-cu13.0
stamp=tessera-wheels.txt   # last file written into an unpacked site; its lines are the wheels

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
scratch=
trap '[[ -z $scratch ]] || rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- Debian packages -------------------------------------------------------------------------------------------------

missing_packages() {  # of the names given
  command -v dpkg-query >/dev/null || { printf '%s\n' "$@"; return; }
  { dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true; } |
    awk -v wanted="$*" '$2 == "installed" { have[$1] = 1 }
                        END { n = split(wanted, w, " "); for (i = 1; i <= n; i++) if (!(w[i] in have)) print w[i] }'
}

need_packages() {  # what for, names...
  local purpose=$1 started=$SECONDS missing
  shift
  mapfile -t missing < <(missing_packages "$@")
  if ((${#missing[@]} == 0)); then
    say "$purpose: all $# Debian packages are there"
    return
  fi
  local command="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null || die "$purpose: there is no apt-get here; install with your system's means what Debian calls: ${missing[*]}"
  local as_root=()
  if ((EUID != 0)); then
    if sudo -n true 2>/dev/null || { [[ -t 0 ]] && command -v sudo >/dev/null; }; then
      as_root=(sudo)
    else
      die "$purpose: missing ${missing[*]}. Neither root nor sudo is at hand; run as root: $command"
    fi
  fi
  say "$purpose: installing ${#missing[@]} Debian packages: ${missing[*]} ..."
  mkdir -p "$deps"
  local log=$deps/apt.log
  # </dev/null: never wait for an answer; Lock::Timeout: another apt may be at work.
  local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
  if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    die "$purpose: apt-get failed (whole log: $log). To try by hand, as root: $command"
  fi
  say "$purpose: installed in $((SECONDS - started)) s"
}

# A package's files without installing it: no root, no service is started, no dependencies.
need_unpacked() {  # what for, package, folder to put it in, a file that tells that it is there
  local purpose=$1 package=$2 folder=$3 proof=$4 started=$SECONDS
  if [[ -e $folder/$proof ]]; then
    say "$purpose: $package is unpacked in ${folder#"$root/"}"
    return
  fi
  say "$purpose: fetching the Debian package $package ..."
  mkdir -p "$deps"
  scratch=$(mktemp -d "$deps/tmp.XXXXXX")
  local log=$scratch/apt.log
  chmod 755 "$scratch"
  if ! (cd "$scratch" && apt-get -q -o Acquire::Retries=3 download "$package") </dev/null >"$log" 2>&1; then
    if ((EUID == 0)) || sudo -n true 2>/dev/null; then  # no package lists yet
      $( ((EUID == 0)) || echo sudo) apt-get -q update </dev/null >>"$log" 2>&1 || true
    fi
    (cd "$scratch" && apt-get -q -o Acquire::Retries=3 download "$package") </dev/null >>"$log" 2>&1 ||
      { tail -n 8 "$log" >&2; die "$purpose: cannot fetch $package. Run as root: apt-get update; then again: launch/setup.sh"; }
  fi
  dpkg-deb -x "$scratch"/"$package"_*.deb "$scratch/files"
  [[ -e $scratch/files/$proof ]] || die "$purpose: the package $package has no $proof"
  mkdir -p "$(dirname "$folder")"
  rm -rf "$folder"
  mv "$scratch/files" "$folder"
  rm -rf "$scratch"
  scratch=
  say "$purpose: $package unpacked in $((SECONDS - started)) s"
}

# ---- LibTorch --------------------------------------------------------------------------------------------------------

stamp_text() { printf '%s\n' "${wheels[@]}"; }
stamped() { [[ -f $1/$stamp && $(<"$1/$stamp") == "$(stamp_text)" ]]; }

# Whether a folder holds every file of the three wheels with its size, by the wheels' own lists.
complete() {
  local folder=$1 wheel name version lists=()
  for wheel in "${wheels[@]}"; do
    read -r name version _ <<<"$wheel"
    local list=$folder/${name//-/_}-$version.dist-info/RECORD
    [[ -f $list ]] || return 1
    lists+=("$list")
  done
  local absent
  absent=$(LC_ALL=C comm -23 <(awk -F '[,\r]' '$3 != "" { print $3 " " $1 }' "${lists[@]}" | LC_ALL=C sort) \
    <(find "$folder/" -type f -printf '%s %P\n' | LC_ALL=C sort) | head -n 3)
  [[ -z $absent ]]
}

fetch_wheels() {  # into a folder
  local folder=$1 wheel name version hash file
  local platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64
    --platform manylinux2014_x86_64)
  for wheel in "${wheels[@]}"; do
    read -r name version hash <<<"$wheel"
    local started=$SECONDS
    for file in "$deps/wheels/${name//-/_}-$version"-*.whl; do  # put there by hand, for machines without a network
      if [[ -f $file ]] && sha256sum --status -c <<<"$hash  $file"; then ln -s "$file" "$folder/"; fi
    done
    if ! compgen -G "$folder/${name//-/_}-$version-*.whl" >/dev/null; then
      python3 -m pip --version >/dev/null 2>&1 || need_packages "pip" python3-pip
      local python=python3
      python3 -m pip --version >/dev/null 2>&1 || python=/usr/bin/python3
      say "torch: downloading $name $version$([[ $name != torch ]] || echo ' (0.53 GB)') ..."
      local quiet=(--quiet)
      [[ ! -t 1 ]] || quiet=()  # pip's progress bar is for terminals
      "$python" -m pip download "${quiet[@]}" --no-deps --disable-pip-version-check --dest "$folder" --python-version 311 \
        --implementation cp "${platforms[@]}" --only-binary=:all: "$name==$version" </dev/null ||
        die "torch: cannot download $name $version with pip. Without a network: put its wheel into $deps/wheels and run this again"
    fi
    file=$(compgen -G "$folder/${name//-/_}-$version-*.whl")
    sha256sum --status -c <<<"$hash  $file" ||
      die "torch: $(basename "$file") has another SHA-256 than the one pinned in launch/setup.sh: not used"
    say "torch: $name $version verified, $(du -Lh "$file" | cut -f1) in $((SECONDS - started)) s"
  done
}

unpack_site() {  # downloads, verifies and unpacks into the cache; whole or not at all
  local started=$SECONDS free
  mkdir -p "$cache"
  free=$(df --output=avail -k "$cache" | tail -n 1)
  ((free > 2300000)) || die "torch: $cache needs 2.3 GB for the download and the unpacked wheels; $((free / 1024)) MiB are free. Set TESSERA_DEPS to another folder"
  scratch=$(mktemp -d "$cache/tmp.XXXXXX")
  echo $$ >"$scratch/owner"
  mkdir "$scratch/wheels" "$scratch/site"
  fetch_wheels "$scratch/wheels"
  local file unpacking=$SECONDS
  for file in "$scratch"/wheels/*.whl; do unzip -q -d "$scratch/site" "$file"; done
  complete "$scratch/site" || die "torch: the wheels did not unpack whole (disk full?)"
  stamp_text >"$scratch/site/$stamp"
  rm -rf "${cache:?}/$site_name"
  mv "$scratch/site" "$cache/$site_name"
  rm -rf "$scratch"  # the wheels go too: half a gigabyte that nobody reads again
  scratch=
  say "torch: unpacked into $cache/$site_name in $((SECONDS - unpacking)) s, $((SECONDS - started)) s in all"
}

# What a killed run left behind; a live one keeps its folder.
sweep_cache() {
  local left
  for left in "$cache"/tmp.*; do
    [[ -d $left ]] || continue
    kill -0 "$(cat "$left/owner" 2>/dev/null || echo 0)" 2>/dev/null || rm -rf "$left"
  done
}

# A folder that was unpacked by hand is as good, once it proves whole; hard links share it with other clones.
adopt_site() {
  [[ -d $deps/site && ! -L $deps/site ]] && complete "$deps/site" || return 1
  stamp_text >"$deps/site/$stamp.new"
  mv "$deps/site/$stamp.new" "$deps/site/$stamp"
  say "torch: the folder .deps/site holds the three wheels whole; adopted"
}
share_site() {
  ! stamped "$cache/$site_name" && mkdir -p "$cache" || return 0
  scratch=$(mktemp -d "$cache/tmp.XXXXXX")
  echo $$ >"$scratch/owner"
  if cp -al "$deps/site" "$scratch/site" 2>/dev/null; then
    rm -rf "${cache:?}/$site_name"
    mv "$scratch/site" "$cache/$site_name"
    say "torch: shared with other clones as $cache/$site_name (hard links, no space)"
  fi
  rm -rf "$scratch"
  scratch=
}

need_torch() {
  if stamped "$deps/site"; then
    say "torch: LibTorch 2.11.0 is in .deps/site"
    return
  fi
  [[ $(uname -m) == x86_64 ]] || die "torch: the pinned wheels are for x86_64; this machine is $(uname -m)"
  need_packages "torch" "${torch_packages[@]}"
  mkdir -p "$deps"
  { mkdir -p "$cache" 2>/dev/null && [[ -w $cache ]]; } || { cache=$deps/cache; mkdir -p "$cache"; }
  exec 9>"$cache/lock"
  flock -n 9 || { say "torch: another setup is at work in $cache; waiting ..."; flock 9; }
  sweep_cache
  if adopt_site; then
    share_site
  else
    stamped "$cache/$site_name" || unpack_site
    [[ ! -d $deps/site || -L $deps/site ]] || mv "$deps/site" "$deps/site.incomplete.$$"
    ln -sfn "$cache/$site_name" "$deps/site.new"
    mv -T "$deps/site.new" "$deps/site"
    rm -rf "$deps/site.incomplete.$$"
    say "torch: .deps/site is linked to $cache/$site_name"
  fi
  exec 9>&-
}

# ---- the rest --------------------------------------------------------------------------------------------------------

need_slurm() {
  local before
  before=$(missing_packages "${slurm_packages[@]}" | wc -l)
  need_packages "slurm" "${slurm_packages[@]}"
  # Installed for the playground alone: the system's own services would hold its ports.
  if ((before > 0)) && [[ -d /run/systemd/system ]]; then
    $( ((EUID == 0)) || echo sudo) systemctl disable --now slurmctld slurmd munge >/dev/null 2>&1 || true
  fi
}

need() {
  case $1 in
    build) need_packages "build" "${build_packages[@]}" ;;
    tests)
      need_packages "tests" "${test_packages[@]}"
      command -v promtool >/dev/null || need_unpacked "tests" prometheus "$deps/tools/prometheus" usr/bin/promtool
      ;;
    torch) need_torch ;;
    corpus-tools) need_packages "corpus-tools" python3 dpkg ;;
    slurm) need_slurm ;;
    all) for part in build tests torch corpus-tools slurm; do need "$part"; done ;;
    -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
    *) die "no part named '$1'. Known: build tests torch corpus-tools slurm all" ;;
  esac
}

(($# > 0)) || set -- build corpus-tools torch
for part in "$@"; do need "$part"; done
