#!/bin/sh
# Installs preflight from this checkout or from a release archive, and takes it away again. `install.sh --help` says how.
#
# POSIX sh. Everything is in functions and `main` is the last line, so that a script cut short in transit does nothing.
set -u

prefix=/usr/local
archive=''
sha256=''
mode=install
dry_run=no
force=no
units=yes
destination=''
scratch=''

usage() {
  cat <<'TEXT'
usage: install.sh [--archive FILE [--sha256 HEX]] [--prefix DIR] [--no-units | --unit-root DIR]
                  [--dry-run] [--force]
       install.sh --uninstall [--prefix DIR] [--unit-root DIR] [--dry-run] [--force]

Without --archive, builds from the checkout this script is in, which needs a Rust toolchain. With it, installs a release
archive, after its sha256 was verified: against HEX, or against FILE.sha256 beside it.

  --prefix DIR   where to install: DIR/bin/preflight and DIR/share/… (default /usr/local)
  --no-units     no boot services. Without it, root gets preflight-recover and preflight-verify, enabled, where systemd or
                 OpenRC is and DIR is below /usr or /opt: they take back what was not confirmed before a power cut, and
                 compare after the boot
  --unit-root DIR  the services go below DIR instead of /, such as an image that is being built, for any prefix
  --dry-run      say what would be done, and change nothing
  --force        overwrite files that differ, remove files that were changed, uninstall while changes are managed
  --uninstall    remove what an install wrote, by its manifest DIR/share/preflight/install-manifest, and nothing else

exit codes: 0 done, 1 refused or failed, 2 wrong usage
TEXT
}

say() { printf 'install.sh: %s\n' "$*" >&2; }

die() {
  say "$1"
  [ $# -lt 2 ] || say "hint: $2"
  exit 1
}

wrong_usage() {
  say "$1"
  say "hint: \`install.sh --help\` lists the options"
  exit 2
}

main() {
  parse_arguments "$@"
  umask 022
  trap clean_up EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  if [ "$mode" = uninstall ]; then
    uninstall
    return
  fi
  scratch=$(mktemp -d "${TMPDIR:-/tmp}/preflight-install.XXXXXX") || die "no temporary folder could be made"
  mkdir "$scratch/tree"
  if [ -n "$archive" ]; then
    unpack
  else
    build
  fi
  install_tree
}

parse_arguments() {
  while [ $# -gt 0 ]; do
    case $1 in
      --archive | --sha256 | --prefix | --unit-root)
        { [ $# -ge 2 ] && [ -n "$2" ]; } || wrong_usage "\`$1\` needs a value"
        set_option "$1" "$2"
        shift
        ;;
      --archive=?* | --sha256=?* | --prefix=?* | --unit-root=?*) set_option "${1%%=*}" "${1#*=}" ;;
      --dry-run) dry_run=yes ;;
      --force) force=yes ;;
      --no-units) units=no ;;
      --uninstall) mode=uninstall ;;
      -h | --help)
        usage
        exit 0
        ;;
      *) wrong_usage "unknown option \`$1\`" ;;
    esac
    shift
  done
  [ "$mode" = install ] || [ -z "$archive$sha256" ] || wrong_usage "\`--uninstall\` takes no archive"
  [ -z "$sha256" ] || [ -n "$archive" ] || wrong_usage "\`--sha256\` is the sum of an archive: name it with \`--archive\`"
  case $prefix in
    /*) ;;
    *) prefix=$(pwd)/$prefix ;;
  esac
  prefix=${prefix%/}
  manifest=$prefix/share/preflight/install-manifest
}

set_option() {
  case $1 in
    --archive) archive=$2 ;;
    --sha256) sha256=$2 ;;
    --prefix) prefix=$2 ;;
    --unit-root) destination=${2%/} ;;
  esac
}

clean_up() {
  [ -z "$scratch" ] || rm -rf "$scratch"
}

sum_of() {
  if command -v sha256sum >/dev/null 2>&1; then
    sha256sum <"$1" | cut -d ' ' -f 1
  else
    shasum -a 256 <"$1" | cut -d ' ' -f 1
  fi
}

# ---- where the files come from: both fill $scratch/tree with bin/preflight, share/… ----

build() {
  checkout=$(cd "$(dirname "$0")" && pwd)
  [ -f "$checkout/Cargo.toml" ] ||
    die "this script is not in a checkout of preflight" "\`--archive FILE\` installs a release archive"
  command -v cargo >/dev/null 2>&1 ||
    die "\`cargo\` was not found" "install Rust, see rustup.rs, or use \`--archive FILE\`"
  if [ "$dry_run" = yes ]; then
    say "would build with \`cargo build --release --locked\` and install to $prefix/bin/preflight"
    exit 0
  fi
  (cd "$checkout" && cargo build --release --locked) || die "the build failed"
  mkdir -p "$scratch/tree/bin"
  cp "${CARGO_TARGET_DIR:-$checkout/target}/release/preflight" "$scratch/tree/bin/preflight" || die "the built binary is missing"
  "$checkout/scripts/documents" "$scratch/tree/bin/preflight" "$scratch/tree" || die "manual pages and completions failed"
  mkdir -p "$scratch/tree/share/preflight"
  cp -R "$checkout/units" "$scratch/tree/share/preflight/units" || die "the services are missing"
}

# The archive is copied first: what is verified is then what is unpacked, whoever may write to the original.
unpack() {
  [ -f "$archive" ] || die "\`$archive\` is not a file"
  expected=$(expected_sum) || exit 1
  cp "$archive" "$scratch/archive.tar.gz" || die "\`$archive\` cannot be read"
  found=$(sum_of "$scratch/archive.tar.gz")
  [ "$found" = "$expected" ] ||
    die "\`$archive\` is not what it should be: its sha256 is $found, expected $expected" "nothing was unpacked; get the archive again"
  refuse_hostile_members
  tar -xzof "$scratch/archive.tar.gz" -C "$scratch/tree" || die "\`$archive\` cannot be unpacked"
  # The same question again to the file system, whatever this tar calls its members.
  [ -z "$(find "$scratch/tree" ! -type d '(' ! -type f -o -links +1 ')')" ] ||
    die "\`$archive\` holds something that is neither file nor folder"
  # One folder on top, preflight-VERSION-OS-ARCH.
  set -- "$scratch/tree"/*
  { [ $# -eq 1 ] && [ -f "$1/bin/preflight" ]; } || die "\`$archive\` is not an archive of preflight: no DIR/bin/preflight"
  mv "$1" "$scratch/top"
  rmdir "$scratch/tree"
  mv "$scratch/top" "$scratch/tree" || die "\`$archive\` cannot be arranged"
}

expected_sum() {
  sum=$sha256
  if [ -z "$sum" ]; then
    [ -f "$archive.sha256" ] ||
      die "there is no \`$archive.sha256\` to verify the archive by" "name its sum with \`--sha256 HEX\`"
    sum=$(head -n 1 "$archive.sha256" | cut -d ' ' -f 1)
  fi
  sum=$(printf '%s' "$sum" | tr 'A-F' 'a-f')
  case $sum in
    *[!0-9a-f]*) die "\`$sum\` is not a sha256 sum" ;;
  esac
  [ ${#sum} -eq 64 ] || die "\`$sum\` is not a sha256 sum: it has ${#sum} digits, not 64"
  printf '%s\n' "$sum"
}

# Before anything is unpacked: no path that leaves the folder, no link, no device, no strange character.
refuse_hostile_members() {
  tar -tzf "$scratch/archive.tar.gz" >"$scratch/names" 2>/dev/null || die "\`$archive\` is not a gzipped tar archive"
  tar -tvzf "$scratch/archive.tar.gz" >"$scratch/long" 2>/dev/null || die "\`$archive\` is not a gzipped tar archive"
  while IFS= read -r name; do
    case $name in
      /* | .. | ../* | */.. | */../*) die "\`$archive\` is refused: its member \`$name\` lies outside of it" ;;
      *[!A-Za-z0-9._/+-]*) die "\`$archive\` is refused: a member has a strange name" ;;
    esac
  done <"$scratch/names"
  if grep -qv '^[-d]' "$scratch/long"; then
    die "\`$archive\` is refused: a member is a link or a device"
  fi
}

# ---- writing ----

# What is installed, relative to the tree and to the prefix; the rest of an archive is for reading only.
wanted_files() {
  (cd "$scratch/tree" && find bin/preflight share -type f 2>/dev/null | grep -vxF share/preflight/install-manifest | LC_ALL=C sort)
}

install_tree() {
  wanted_files >"$scratch/wanted"
  refuse_to_overwrite
  if [ "$dry_run" = yes ]; then
    while IFS= read -r file; do
      say "would write $prefix/$file"
    done <"$scratch/wanted"
    install_units
    return
  fi
  # First, so that an install that is cut short can be taken away as well; a sum that does not fit is never removed.
  write_manifest
  while IFS= read -r file; do
    case $file in
      bin/*) permissions=0755 ;;
      *) permissions=0644 ;;
    esac
    put "$scratch/tree/$file" "$prefix/$file" "$permissions"
  done <"$scratch/wanted"
  say "installed $prefix/bin/preflight"
  install_units
  case :$PATH: in
    *:"$prefix/bin":*) ;;
    *) say "hint: $prefix/bin is not in the PATH" ;;
  esac
}

# All of them are looked at before the first is written.
refuse_to_overwrite() {
  [ "$force" = no ] || return 0
  differing=''
  while IFS= read -r file; do
    if [ -L "$prefix/$file" ] || { [ -e "$prefix/$file" ] && ! cmp -s "$scratch/tree/$file" "$prefix/$file"; }; then
      say "$prefix/$file exists and differs"
      differing=yes
    fi
  done <"$scratch/wanted"
  [ -z "$differing" ] || die "nothing was changed" "\`--force\` overwrites"
}

# Under a temporary name in the same folder, then renamed: nobody ever runs half a binary.
put() {
  folder=${2%/*}
  mkdir -p "$folder" || die "$folder cannot be made"
  { [ ! -d "$2" ] || [ -L "$2" ]; } || die "$2 is a folder"
  temporary=$(mktemp "$folder/.preflight.XXXXXX") || die "$folder cannot be written to" "another \`--prefix\`, or as root"
  if cp "$1" "$temporary" && chmod "$3" "$temporary" && mv -f "$temporary" "$2"; then
    return
  fi
  rm -f "$temporary"
  die "$2 could not be written"
}

# Lines of `SUM  PATH`, or `folder  PATH` for a folder that was made, paths relative to the prefix. What an older install
# wrote and this one does not stays listed.
write_manifest() {
  echo share/preflight/install-manifest | cat "$scratch/wanted" - | while IFS= read -r file; do
    missing_folders "${file%/*}"
  done | LC_ALL=C sort -u >"$scratch/manifest"
  while IFS= read -r file; do
    printf '%s  %s\n' "$(sum_of "$scratch/tree/$file")" "$file"
  done <"$scratch/wanted" >>"$scratch/manifest"
  if [ -f "$manifest" ]; then
    while read -r sum file; do
      grep -qxF -- "$file" "$scratch/wanted" || printf '%s  %s\n' "$sum" "$file"
    done <"$manifest" >>"$scratch/manifest"
  fi
  put "$scratch/manifest" "$manifest" 0644
}

# The folder and those above it, up to the prefix, that are not there yet.
missing_folders() {
  missing=$1
  while [ ! -e "$prefix/$missing" ]; do
    printf 'folder  %s\n' "$missing"
    case $missing in
      */*) missing=${missing%/*} ;;
      *) break ;;
    esac
  done
}

# ---- services ----

# The services lie outside of the prefix, so the manifest does not list them: both are known by name, and are ours by
# their content. `service_manager` says `systemd FOLDER`, `openrc FOLDER` or nothing.
service_manager() {
  if [ -d "$destination/etc/systemd/system" ]; then
    printf 'systemd %s\n' "$destination/etc/systemd/system"
  elif [ -x "$destination/sbin/openrc-run" ] && [ -d "$destination/etc/init.d" ]; then
    printf 'openrc %s\n' "$destination/etc/init.d"
  fi
}

# Only for a binary that root alone installs: a boot service runs no program of a user.
install_units() {
  [ "$units" = yes ] || return 0
  [ -d "$prefix/share/preflight/units" ] || [ -d "$scratch/tree/share/preflight/units" ] || return 0
  service_manager >"$scratch/manager"
  read -r manager folder <"$scratch/manager" || return 0
  case $destination:$(id -u):$prefix in
    :0:/usr/* | :0:/opt/* | /*) ;;
    *)
      say "the boot services need root and a prefix below /usr or /opt, and were left out; so does \`--no-units\`, without a word"
      return 0
      ;;
  esac
  case $prefix in
    *[!A-Za-z0-9._/+-]*) die "the boot services cannot name a program under $prefix" "\`--no-units\`" ;;
  esac
  for unit in "$scratch/tree/share/preflight/units/$manager"/*; do
    name=${unit##*/}
    if [ "$dry_run" = yes ]; then
      say "would write $folder/$name, and enable it"
      continue
    fi
    sed "s|@BINARY@|$prefix/bin/preflight|" "$unit" >"$scratch/unit" || die "$unit cannot be read"
    if [ "$force" = no ] && [ -e "$folder/$name" ] && ! is_our_unit "$folder/$name"; then
      die "$folder/$name exists and is not preflight's" "\`--force\` overwrites, \`--no-units\` leaves the services out"
    fi
    case $manager in
      systemd) put "$scratch/unit" "$folder/$name" 0644 ;;
      openrc) put "$scratch/unit" "$folder/$name" 0755 ;;
    esac
    enable_unit || die "$name could not be enabled"
    say "installed and enabled $folder/$name"
  done
  reload_units
}

# The link that its own [Install] section asks for, as `systemctl enable` makes it, or that `rc-update add` makes.
enable_unit() {
  wants=$(wants_of)
  mkdir -p "$wants" || return 1
  case $manager in
    systemd) ln -sfn "/etc/systemd/system/$name" "$wants/$name" ;;
    openrc) ln -sfn "/etc/init.d/$name" "$wants/$name" ;;
  esac
}

wants_of() {
  case $manager:$name in
    systemd:*) printf '%s/%s.wants' "$folder" "$(sed -n 's/^WantedBy=//p' "$folder/$name" | head -n 1)" ;;
    openrc:*recover) printf '%s/etc/runlevels/boot' "$destination" ;;
    openrc:*) printf '%s/etc/runlevels/default' "$destination" ;;
  esac
}

is_our_unit() { grep -q '^Documentation=man:preflight-\|^description=.*preflight' "$1" 2>/dev/null; }

# Only where systemd runs this very host.
reload_units() {
  if [ -z "$destination" ] && [ "$manager" = systemd ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload || say "\`systemctl daemon-reload\` failed: the services are there from the next boot on"
  fi
}

# A unit that runs the binary of another prefix belongs to that install.
remove_units() {
  manager='' folder=''
  found=$(service_manager)
  manager=${found%% *} folder=${found#* }
  [ -n "$manager" ] || return 0
  for name in preflight-recover.service preflight-verify.service preflight-recover preflight-verify; do
    if ! is_our_unit "$folder/$name" || ! grep -qF "$prefix/bin/preflight " "$folder/$name"; then
      continue
    fi
    if [ "$dry_run" = yes ]; then
      say "would remove $folder/$name"
      continue
    fi
    wants=$(wants_of)
    rm -f "$wants/$name" "$folder/$name" || die "$folder/$name cannot be removed"
    rmdir "$wants" 2>/dev/null
  done
  [ "$dry_run" = yes ] || reload_units
}

# ---- taking away ----

uninstall() {
  [ -f "$manifest" ] || die "there is no $manifest: nothing was installed under $prefix by this script" "\`--prefix DIR\`"
  refuse_while_managed
  kept=''
  while read -r sum file; do
    case $file in
      '' | /* | .. | ../* | */.. | */../*) die "$manifest names \`$file\`, which is not under the prefix: nothing was removed" ;;
    esac
  done <"$manifest"
  # First: a service without its program fails every boot.
  remove_units
  while read -r sum file; do
    [ "$sum" = folder ] || take_away "$sum" "$file"
  done <"$manifest"
  if [ -n "$kept" ]; then
    say "$manifest stays, for what was kept"
    exit 1
  fi
  if [ "$dry_run" = yes ]; then
    say "would remove $manifest"
    return
  fi
  # The deepest first; one that holds something of others stays.
  folders=$(sed -n 's/^folder  //p' "$manifest" | LC_ALL=C sort -r)
  rm -f "$manifest" || die "$manifest cannot be removed"
  printf '%s\n' "$folders" | while IFS= read -r folder; do
    [ -z "$folder" ] || rmdir "$prefix/$folder" 2>/dev/null
  done
  say "removed preflight from $prefix"
}

take_away() {
  target=$prefix/$2
  if [ ! -e "$target" ] && [ ! -L "$target" ]; then
    return
  fi
  if [ "$force" = no ] && { [ -L "$target" ] || [ ! -f "$target" ] || [ "$(sum_of "$target")" != "$1" ]; }; then
    say "$target is not what was installed, and is kept; \`--force\` removes it"
    kept=yes
  elif [ "$dry_run" = yes ]; then
    say "would remove $target"
  else
    rm -f "$target" || die "$target cannot be removed"
  fi
}

# Without the binary nobody can take the host's changes back. The state is the product's own; its installed binary is
# asked nothing, since an uninstall must also work when the binary does not.
refuse_while_managed() {
  [ "$force" = no ] || return 0
  reason=$(managed_changes)
  [ -z "$reason" ] || die "this host still has changes made by preflight: $reason" \
    "\`preflight rollback --all\` takes them back first; \`--force\` leaves them behind"
}

managed_changes() {
  # A marker stands for a transaction that has something left to do.
  for marker in /var/lib/preflight/open-*; do
    if [ -e "$marker" ]; then
      printf 'the transaction %s is not finished' "${marker##*/open-}"
      return
    fi
  done
  if [ -s /var/lib/preflight/managed.json ]; then
    case $(tr -d ' \t\r\n' </var/lib/preflight/managed.json) in
      '{}' | *'"knobs":{}'* | *'"knobs":[]'*) ;;
      *'"knobs":'*) printf '/var/lib/preflight/managed.json' ;;
      *'{'*'}') ;;
      *) printf '/var/lib/preflight/managed.json, which cannot be understood' ;;
    esac
  fi
}

main "$@"
