//! Guards that this test writes by itself, so that what the traffic does to them is known apart from the product.

use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    None,
    Nft,
    /// By the iptables that the host has: over nftables, or legacy.
    Iptables,
    /// What `preflight tune --apply` makes.
    Preflight,
}

const NFT: &str = "
table inet preflight
delete table inet preflight
table inet preflight {
  set ports { type inet_service; flags interval; elements = { 6379-6381, 26379-26381 }
  }
  set allow4 { type ipv4_addr; flags interval; elements = { 10.77.0.50, 172.20.0.0/16, 172.21.0.0/16, 172.22.0.0/16 }
  }
  set allow6 { type ipv6_addr; flags interval; elements = { fd77::50, fd00:21::/64, fd00:22::/64 }
  }
  chain guard {
    type filter hook prerouting priority mangle; policy accept;
    iifname \"lo\" accept
    ct state established,related accept
    tcp dport @ports fib daddr type local goto restrict
    iifname \"up0\" ip daddr 172.20.0.0/16 goto restrict
    iifname \"up0\" ip6 daddr fd00:21::/64 goto restrict
  }
  chain restrict {
    ip saddr @allow4 accept
    ip6 saddr @allow6 accept
    counter drop
  }
}
";

fn iptables(allow: &[&str], containers: &str) -> String {
    let accept: Vec<_> = allow.iter().map(|from| format!("-A PREFLIGHT-R -s {from} -j RETURN\n")).collect();
    let accept = accept.concat();
    format!(
        "*mangle\n:PREFLIGHT - [0:0]\n:PREFLIGHT-R - [0:0]\n\
         -A PREFLIGHT -i lo -j RETURN\n\
         -A PREFLIGHT -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN\n\
         -A PREFLIGHT -p tcp -m multiport --dports 6379:6381,26379:26381 -m addrtype --dst-type LOCAL -g PREFLIGHT-R\n\
         -A PREFLIGHT -i up0 -d {containers} -g PREFLIGHT-R\n\
         {accept}-A PREFLIGHT-R -j DROP\n-A PREROUTING -j PREFLIGHT\nCOMMIT\n"
    )
}

impl World {
    pub(crate) fn raise(&self, guard: Guard) {
        match guard {
            Guard::None | Guard::Preflight => {}
            Guard::Nft => drop(self.shell(&format!("nft -f - <<'END'\n{NFT}END"))),
            Guard::Iptables => {
                let v4 = iptables(&["10.77.0.50", "172.20.0.0/16", "172.21.0.0/16", "172.22.0.0/16"], "172.20.0.0/16");
                let v6 = iptables(&["fd77::50", "fd00:21::/64", "fd00:22::/64"], "fd00:21::/64");
                self.shell(&format!(
                    "iptables-restore --noflush -w <<'END'\n{v4}END\nip6tables-restore --noflush -w <<'END'\n{v6}END\n"
                ));
            }
        }
    }

    pub(crate) fn take_away(&self, guard: Guard) {
        match guard {
            Guard::None | Guard::Preflight => {}
            Guard::Nft => drop(self.shell("nft delete table inet preflight")),
            Guard::Iptables => drop(self.shell(
                "for f in iptables ip6tables; do $f -w -t mangle -D PREROUTING -j PREFLIGHT
                   for o in -F -X; do for c in PREFLIGHT PREFLIGHT-R; do $f -w -t mangle $o $c; done; done; done",
            )),
        }
    }

    /// Whether the guard is still there: where it was made, and nowhere else.
    pub(crate) fn is_raised(&self, guard: Guard) -> bool {
        let script = match guard {
            Guard::None | Guard::Preflight => return true,
            Guard::Nft => "nft list table inet preflight",
            Guard::Iptables => {
                "iptables -t mangle -C PREROUTING -j PREFLIGHT && ip6tables -t mangle -C PREROUTING -j PREFLIGHT"
            }
        };
        self.succeeds(script)
    }
}
