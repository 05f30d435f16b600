# shellcheck shell=bash disable=SC2154,SC2317 # sourced: variables are set by tests/run, some functions are reached by traps
# Part of tests/run: what the machine was like before, what it is like afterwards, and how it is put back.
#
# Uses of tests/run: state, cache, child, recorded, passed, failed, skipped, problems, say, problem, as_root, can_be_root.

# Settings of the whole machine that a suite may touch, with the reason that they are not left to chance: others have
# been seen to change some of them, so the value found is what is restored, never a presumed default.
readonly settings="vm.overcommit_memory vm.swappiness net.core.somaxconn net.ipv4.ip_forward net.ipv4.tcp_syncookies
  net.ipv4.tcp_max_syn_backlog net.ipv4.ip_local_port_range net.ipv4.ip_local_reserved_ports
  net.ipv4.ip_unprivileged_port_start net.ipv6.conf.all.forwarding fs.nr_open fs.protected_hardlinks
  fs.protected_symlinks fs.protected_regular fs.protected_fifos kernel.pid_max"
readonly huge_pages=/sys/kernel/mm/transparent_hugepage

# One line for each thing, so that a comparison names what differs.
record() {
  {
    local key
    for key in $settings; do
      printf 'setting %s = %s\n' "$key" "$(tr '\t' ' ' <"/proc/sys/${key//.//}" 2>/dev/null)"
    done
    for key in enabled defrag shmem_enabled khugepaged/defrag; do
      printf 'huge-pages %s = %s\n' "$key" "$(chosen_word "$huge_pages/$key")"
    done
    # shellcheck disable=SC2012 # names of namespaces and interfaces hold no white space
    ls /run/netns 2>/dev/null | sed 's/^/netns /'
    # shellcheck disable=SC2012
    ls /sys/class/net 2>/dev/null | sed 's/^/interface /'
    # Field 5 is the mount point, 6 its options. `ip netns add` binds /run/netns onto itself, once.
    awk '$5 != "/run/netns" { print "mount " $5 " " $6 }' /proc/self/mountinfo
    for key in /proc/[0-9]*; do
      case $(cat "$key/comm" 2>/dev/null) in
        dockerd | containerd | podman) printf 'daemon %s %s\n' "${key#/proc/}" "$(cat "$key/comm")" ;;
      esac
    done
    printf 'firewall %s\n' "$(rules | cksum)"
    find /etc/docker /etc/preflight /etc/sysctl.conf /etc/sysctl.d /etc/tmpfiles.d /etc/security /etc/systemd/system \
      /var/lib/preflight -printf 'file %p %s %T@\n' 2>/dev/null
    find /sys/fs/cgroup -maxdepth 3 -type d -name '*preflight*' -printf 'cgroup %p\n' 2>/dev/null
  } | LC_ALL=C sort -u >"$1"
}

# The word in brackets of `always [madvise] never`.
chosen_word() { sed -n 's/.*\[\(.*\)\].*/\1/p' "$1" 2>/dev/null; }

# Without counters. iptables-legacy-save would load the legacy tables by asking for them, so it asks only where they are.
rules() {
  can_be_root || return 0
  as_root nft -s list ruleset 2>/dev/null
  local family
  for family in ip ip6; do
    [ ! -s "/proc/net/${family}_tables_names" ] || as_root "${family}tables-legacy-save" 2>/dev/null | grep -v '^[#:]'
  done
}

interrupted() {
  trap '' INT TERM HUP
  say "interrupted: ending what runs, putting the machine back"
  problems+=("interrupted")
  failed=$((failed + 1))
  end_child
  exit "$1"
}

end_child() {
  [ "$child" -ne 0 ] || return 0
  local waited=0
  kill -TERM -- "-$child" 2>/dev/null
  while kill -0 -- "-$child" 2>/dev/null && [ "$waited" -lt 150 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
  kill -KILL -- "-$child" 2>/dev/null
  end_copier
}

# The EXIT trap: also after a failure and an interrupt.
put_back() {
  local code=$?
  trap '' INT TERM HUP
  forget_policy
  [ "$recorded" = yes ] || exit "$code"
  end_own_processes
  record "$state/after"
  if ! cmp -s "$state/before" "$state/after"; then
    problem "the machine was not left as it was found (< before, > after):"
    diff "$state/before" "$state/after" | grep '^[<>]' >&2
    restore
    record "$state/restored"
    if cmp -s "$state/before" "$state/restored"; then
      say "all of that has been put back"
    else
      say "this could not be put back:"
      diff "$state/before" "$state/restored" | grep '^[<>]' >&2
    fi
  fi
  forget_netns_mount
  local line
  for line in "${problems[@]}"; do
    say "FAILED: $line"
  done
  printf '%s passed, %s failed, %s skipped\n' "$passed" "$failed" "$skipped"
  [ "$code" -ne 0 ] || [ "$failed" -eq 0 ] || code=1
  exit "$code"
}

# By process id, and only those that carry this run's mark.
end_own_processes() {
  local pid found=() signal tries
  own_processes found
  [ ${#found[@]} -gt 0 ] || return 0
  problem "left running: $(for pid in "${found[@]}"; do printf '%s (%s) ' "$pid" "$(cat "/proc/$pid/comm" 2>/dev/null)"; done)"
  for signal in TERM KILL; do
    [ ${#found[@]} -eq 0 ] || as_root kill "-$signal" "${found[@]}" 2>/dev/null
    for tries in 1 2 3 4 5 6 7 8 9 10; do
      own_processes found
      [ ${#found[@]} -gt 0 ] || return 0
      sleep 0.3
    done
  done
  say "still running after SIGKILL ($tries looks): ${found[*]}"
}

own_processes() {
  local -n into=$1
  local path searcher
  into=()
  searcher=(grep -lszxF "PREFLIGHT_TESTS_RUN=$PREFLIGHT_TESTS_RUN")
  # The search carries the mark too, and is gone when its answer is read.
  while read -r path; do
    path=${path#/proc/}
    path=${path%/environ}
    [ ! -d "/proc/$path" ] || [ "$(cat "/proc/$path/comm" 2>/dev/null)" = grep ] || into+=("$path")
  done < <(if can_be_root; then as_root "${searcher[@]}" /proc/[0-9]*/environ; else "${searcher[@]}" /proc/[0-9]*/environ; fi)
}

# Settings go back to the value that was found; what is new and certainly of this run goes away. The rest is for a person.
restore() {
  can_be_root || return 0
  local kind name sign value point
  while read -r kind name sign value; do
    case $kind in
      setting) as_root tee "/proc/sys/${name//.//}" <<<"$value" >/dev/null ;;
      huge-pages) as_root tee "$huge_pages/$name" <<<"$value" >/dev/null ;;
    esac
  done < <(LC_ALL=C comm -23 "$state/before" "$state/after" | grep -E '^(setting|huge-pages) ')
  : "$sign"
  while read -r kind name sign; do
    case $kind in
      # New since the start, and nobody is in it now that our own processes are gone.
      netns) netns_is_empty "$name" && as_root ip netns delete "$name" ;;
      mount)
        printf -v point '%b' "${name//\\/\\0}" # mountinfo writes a space as \040
        case $point in "$cache"/*) as_root umount -l "$point" ;; esac
        ;;
      cgroup) as_root rmdir "$name" ;;
    esac
  done < <(LC_ALL=C comm -13 "$state/before" "$state/after" | LC_ALL=C sort -r)
}

netns_is_empty() {
  local inode users
  inode=$(as_root stat -Lc %i "/run/netns/$1") || return 1
  # It fails when a process ends meanwhile; what it lists counts all the same.
  users=$(as_root find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/net' -printf '%l\n' 2>/dev/null) || true
  ! grep -qxF "net:[$inode]" <<<"$users"
}

# The bind mount that the first `ip netns add` makes stays when the last namespace goes.
forget_netns_mount() {
  can_be_root && [ -d /run/netns ] && [ -z "$(ls /run/netns)" ] || return 0
  ! awk '$5 == "/run/netns" { found = 1 } END { exit !found }' /proc/self/mountinfo || as_root umount /run/netns
  as_root rmdir /run/netns 2>/dev/null || true
}
