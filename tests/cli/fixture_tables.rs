//! What preflight says of each root under tests/fixtures/roots, pinned: a change of any probe, check or OS profile is a
//! visible diff here. `cargo insta test --accept --test cli -- fixture_tables` writes the tables anew.

use crate::fixtures::judged;

#[test]
fn acme_linux() {
    insta::assert_snapshot!(judged("acme-linux"), @"
    Acme Linux 7.1 (Roadrunner) | 6.12.9-acme | not_ready
    warn os.supported: unknown-release
    pass os.kernel: 6.12.9-acme
    warn tool.git: not installed
    warn tool.curl: not installed
    fail port.ephemeral-overlap: 26379, 26380, 26381
    pass firewall.flush-risk: keeps other rules
    fail resource.memory: 990.5 MiB
    fail resource.memory-fit: 990.5 MiB
    fail resource.memory-available: 392.5 MiB
    warn resource.swap: none
    fail kernel.overcommit: 2 | boot 2 @ /etc/sysctl.d/60-acme.conf:2
    pass kernel.thp: never | boot unknown, /boot/config-*
    warn kernel.thp-sizes: 64kB | boot none @ tmpfiles.d(5), kernel default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 128 | boot 128 by default
    pass kernel.syncookies: 1 | boot 1 by default
    pass kernel.swappiness: 0 | boot 0 @ /etc/sysctl.d/60-acme.conf:3
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    warn kernel.clocksource: hpet
    fail kernel.conntrack: 93 %
    fail limits.nr-open: 32768 | boot 32768 @ /etc/sysctl.d/60-acme.conf:5
    fail limits.pam-lockout: /etc/security/limits.conf:9 65535
    ");
}

#[test]
fn alpine_3_22() {
    insta::assert_snapshot!(judged("alpine-3.22"), @"
    Alpine Linux v3.22 | 6.12.57-0-lts | not_ready
    pass os.supported: supported
    pass os.kernel: 6.12.57-0-lts
    warn tool.git: not installed
    pass tool.curl: installed
    pass docker.boot-enabled: enabled
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    warn resource.memory: 1.9 GiB
    fail resource.memory-fit: 1.9 GiB
    warn resource.memory-available: 1.6 GiB
    pass resource.swap: 1.9 GiB
    warn kernel.overcommit: 0 | boot 0 by default
    pass kernel.thp: madvise | boot unknown, /boot/config-*
    pass kernel.thp-sizes: none | boot none @ tmpfiles.d(5), kernel default
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 128 | boot 128 by default
    pass kernel.syncookies: 1 | boot 1 @ /usr/lib/sysctl.d/00-alpine.conf:2
    warn kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: kvm-clock
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn amazon_2023() {
    insta::assert_snapshot!(judged("amazon-2023"), @"
    Amazon Linux 2023.9.20251110 | 6.1.156-177.286.amzn2023.x86_64 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 6.1.156-177.286.amzn2023.x86_64
    warn tool.git: not installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 3.7 GiB
    pass resource.memory-fit: 3.7 GiB
    pass resource.memory-available: 3.1 GiB
    warn resource.swap: none
    warn kernel.overcommit: 0 | boot 0 by default
    pass kernel.thp: madvise | boot unknown, /boot/config-*
    pass kernel.thp-sizes: this kernel has no per-size huge pages | boot unknown, /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 256 | boot 256 by default
    pass kernel.syncookies: 1 | boot 1 by default
    pass kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: kvm-clock
    pass kernel.conntrack: 1 %
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn arch() {
    insta::assert_snapshot!(judged("arch"), @"
    Arch Linux | 6.17.8-arch1-1 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 6.17.8-arch1-1
    pass tool.git: installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 31.2 GiB
    pass resource.memory-fit: 31.2 GiB
    pass resource.memory-available: 28.1 GiB
    warn resource.swap: none
    pass kernel.overcommit: 1 | boot 1 @ /etc/sysctl.d/99-redis.conf:2
    warn kernel.thp: always | boot unknown, /boot/config-*
    pass kernel.thp-sizes: none | boot none @ tmpfiles.d(5), kernel default
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 2048 | boot 2048 by default
    pass kernel.syncookies: 1 | boot 1 by default
    pass kernel.swappiness: 10 | boot 10 @ /etc/sysctl.d/99-redis.conf:3
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: tsc
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn debian_12() {
    insta::assert_snapshot!(judged("debian-12"), @"
    Debian GNU/Linux 12 (bookworm) | 6.1.0-41-amd64 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 6.1.0-41-amd64
    pass tool.git: installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 7.7 GiB
    pass resource.memory-fit: 7.7 GiB
    pass resource.memory-available: 6.5 GiB
    pass resource.swap: 976.9 MiB
    pass kernel.overcommit: 1 | boot 1 @ /etc/sysctl.d/99-sysctl.conf:14
    warn kernel.thp: always | boot always @ /boot/config-6.1.0-41-amd64
    pass kernel.thp-sizes: this kernel has no per-size huge pages | boot unknown, /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 65535 @ /etc/sysctl.d/99-sysctl.conf:15
    pass kernel.syn-backlog: 512 | boot 512 by default
    pass kernel.syncookies: 1 | boot 1 by default
    warn kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: tsc
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn debian_13() {
    insta::assert_snapshot!(judged("debian-13"), @"
    Debian GNU/Linux 13 (trixie) | 6.12.57+deb13-amd64 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 6.12.57+deb13-amd64
    warn tool.git: not installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 7.7 GiB
    pass resource.memory-fit: 7.7 GiB
    pass resource.memory-available: 6.6 GiB
    warn resource.swap: none
    warn kernel.overcommit: 0 after the next boot | boot 0 by default
    warn kernel.thp: always | boot unknown, /boot/config-*
    pass kernel.thp-sizes: none | boot none @ tmpfiles.d(5), kernel default
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 512 | boot 512 by default
    pass kernel.syncookies: 1 | boot 1 by default
    pass kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: kvm-clock
    pass kernel.conntrack: 1 %
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn fedora_43() {
    insta::assert_snapshot!(judged("fedora-43"), @"
    Fedora Linux 43 (Server Edition) | 6.17.8-300.fc43.x86_64 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 6.17.8-300.fc43.x86_64
    pass tool.git: installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 15.5 GiB
    pass resource.memory-fit: 15.5 GiB
    pass resource.memory-available: 13.8 GiB
    pass resource.swap: 7.9 GiB
    warn kernel.overcommit: 0 | boot 0 by default
    pass kernel.thp: never | boot never @ /proc/cmdline
    pass kernel.thp-sizes: none | boot none @ tmpfiles.d(5), kernel default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 1024 | boot 1024 by default
    pass kernel.syncookies: 1 | boot 1 by default
    warn kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: tsc
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn mystery_os() {
    insta::assert_snapshot!(judged("mystery-os"), @"
    Mystery OS | 4.14.336 | not_ready
    warn os.supported: unknown-os
    fail os.kernel: 4.14.336
    warn tool.git: not installed
    warn tool.curl: not installed
    pass firewall.flush-risk: keeps other rules
    fail resource.memory: 494.2 MiB
    fail resource.memory-fit: 494.2 MiB
    fail resource.memory-available: 391.7 MiB
    warn resource.swap: none
    warn kernel.overcommit: 0 | boot 0 by default
    warn kernel.somaxconn: 128 | boot 128 by default
    pass kernel.syn-backlog: 128 | boot unknown, sysctl.d(5)
    pass kernel.syncookies: 1 | boot 1 by default
    pass kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn opensuse_leap_15_6() {
    insta::assert_snapshot!(judged("opensuse-leap-15.6"), @"
    openSUSE Leap 15.6 | 6.4.0-150600.23.78-default | ready_with_warnings
    warn os.supported: end-of-life
    pass os.kernel: 6.4.0-150600.23.78-default
    warn tool.git: not installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 7.7 GiB
    pass resource.memory-fit: 7.7 GiB
    pass resource.memory-available: 6.2 GiB
    pass resource.swap: 2 GiB
    warn kernel.overcommit: 0 | boot 0 by default
    warn kernel.thp: always | boot unknown, /boot/config-*
    pass kernel.thp-sizes: this kernel has no per-size huge pages | boot unknown, /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 512 | boot 512 by default
    pass kernel.syncookies: 1 | boot 1 by default
    warn kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: kvm-clock
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn rhel_9() {
    insta::assert_snapshot!(judged("rhel-9"), @"
    Red Hat Enterprise Linux 9.6 (Plow) | 5.14.0-570.58.1.el9_6.x86_64 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 5.14.0-570.58.1.el9_6.x86_64
    pass tool.git: installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 15.2 GiB
    pass resource.memory-fit: 15.2 GiB
    pass resource.memory-available: 13.1 GiB
    pass resource.swap: 7.8 GiB
    warn kernel.overcommit: 0 | boot 0 by default
    warn kernel.thp: always | boot always @ /boot/config-5.14.0-570.58.1.el9_6.x86_64
    pass kernel.thp-sizes: this kernel has no per-size huge pages | boot unknown, /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 128 | boot unknown, sysctl.d(5)
    pass kernel.syncookies: 1 | boot 1 by default
    warn kernel.swappiness: 30 | boot 30 @ /usr/lib/tuned/virtual-guest/tuned.conf:11
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: kvm-clock
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn rocky_8() {
    insta::assert_snapshot!(judged("rocky-8"), @"
    Rocky Linux 8.10 (Green Obsidian) | 4.18.0-553.81.1.el8_10.x86_64 | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 4.18.0-553.81.1.el8_10.x86_64
    warn tool.git: not installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    warn resource.memory: 3.6 GiB
    warn resource.memory-fit: 3.6 GiB
    pass resource.memory-available: 2.7 GiB
    pass resource.swap: 1.9 GiB
    warn kernel.overcommit: 0 | boot 0 by default
    warn kernel.thp: always | boot unknown, /boot/config-*
    pass kernel.thp-sizes: this kernel has no per-size huge pages | boot unknown, /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled
    pass kernel.thp-defrag: madvise | boot madvise by default
    warn kernel.somaxconn: 128 | boot 2048 @ /usr/lib/tuned/throughput-performance/tuned.conf:17
    pass kernel.syn-backlog: 128 | boot unknown, sysctl.d(5)
    pass kernel.syncookies: 1 | boot 1 by default
    warn kernel.swappiness: 30 | boot 30 @ /usr/lib/tuned/virtual-guest/tuned.conf:11
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: tsc
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}

#[test]
fn ubuntu_22_04() {
    insta::assert_snapshot!(judged("ubuntu-22.04"), @"
    Ubuntu 22.04.5 LTS | 5.15.0-161-generic | ready_with_warnings
    pass os.supported: supported
    pass os.kernel: 5.15.0-161-generic
    pass tool.git: installed
    pass tool.curl: installed
    pass port.ephemeral-overlap: none
    pass firewall.flush-risk: keeps other rules
    pass resource.memory: 3.8 GiB
    pass resource.memory-fit: 3.8 GiB
    pass resource.memory-available: 2.9 GiB
    warn resource.swap: none
    warn kernel.overcommit: 0 | boot 0 by default
    pass kernel.thp: madvise | boot madvise @ /boot/config-5.15.0-161-generic
    pass kernel.thp-sizes: this kernel has no per-size huge pages | boot unknown, /sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled
    pass kernel.thp-defrag: madvise | boot madvise by default
    pass kernel.somaxconn: 4096 | boot 4096 by default
    pass kernel.syn-backlog: 128 | boot unknown, sysctl.d(5)
    pass kernel.syncookies: 1 | boot 1 by default
    pass kernel.swappiness: 60 | boot 60 by default
    pass kernel.zone-reclaim: 0 after the next boot | boot 0 by default
    pass kernel.clocksource: kvm-clock
    pass kernel.conntrack: 1 %
    pass limits.nr-open: 1048576 | boot 1048576 by default
    pass limits.pam-lockout: none
    ");
}
