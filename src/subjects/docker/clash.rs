//! Subnets of Docker's bridges that this host also reaches another way: by a VPN, the network of the data centre, another
//! bridge. Docker looks for that once, when it makes a network, and not for what comes later or is asked for by its subnet.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use procfs_core::FromBufRead as _;
use procfs_core::net::RouteEntries;

use super::networks::DockerNetwork;
use crate::facts::network::Network;
use crate::facts::{Fact, Value};
use crate::host::Host;

pub(crate) const CLASH: &str = "docker.subnet-clash";

/// The main table of the calling process's network namespace (`net/ipv4/fib_trie.c`, `net/ipv6/route.c`).
const ROUTES: [&str; 2] = ["/proc/net/route", "/proc/net/ipv6_route"];
const SOURCE: &str = "GET /networks, /proc/net/route, /proc/net/ipv6_route";

/// `RTF_REJECT` of `include/uapi/linux/route.h`: it leads nowhere, on purpose.
const REJECT: u32 = 0x0200;

/// Where packets to a network go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    network: Network,
    device: String,
}

/// The bridges of these kinds of engines are devices of this host.
pub(crate) fn fact(host: &Host, kind: Option<&str>, networks: &[DockerNetwork]) -> Fact {
    if kind != Some("docker") {
        let why = format!("the bridges of {} are not known as devices of this host", kind.unwrap_or("this engine"));
        return Fact::absent(why, SOURCE);
    }
    let [v4, v6] = ROUTES;
    let routes =
        host.read_text(v4).map_err(|error| Fact::unreadable_of_kernel(host, &error, "no IPv4")).and_then(|text| {
            let unknown = |error: String| Fact::unknown(error, Some("please report this"), v4);
            let mut routes = parse_v4(&text).map_err(unknown)?;
            // Without IPv6 there is no such file.
            match host.read_optional(v6) {
                Ok(text) => routes.extend(parse_v6(&text.unwrap_or_default())),
                Err(error) => return Err(Fact::unreadable(&error, "no IPv6")),
            }
            Ok(routes)
        });
    match routes {
        Ok(routes) => Fact::known(Value::Set(clashes(networks, &routes)), SOURCE),
        Err(fact) => fact,
    }
}

/// `SUBNET of NETWORK, and ROUTE by DEVICE` for every pair that shares addresses.
fn clashes(networks: &[DockerNetwork], routes: &[Route]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for network in networks.iter().filter(|network| network.driver == "bridge") {
        let others = || routes.iter().filter(|route| route.device != network.bridge && route.device != "lo");
        for subnet in network.subnets.iter().map(|subnet| subnet.network) {
            // The default route is there for what nobody else has.
            let shared = |route: &&Route| {
                route.network.prefix() > 0 && (route.network.covers(&subnet) || subnet.covers(&route.network))
            };
            found.extend(
                others()
                    .filter(shared)
                    .map(|route| format!("{subnet} of {}, and {} by {}", network.name, route.network, route.device)),
            );
        }
    }
    found
}

fn parse_v4(text: &str) -> Result<Vec<Route>, String> {
    let RouteEntries(entries) = RouteEntries::from_buf_read(text.as_bytes()).map_err(|error| error.to_string())?;
    let leads = entries.into_iter().filter(|entry| u32::from(entry.flags) & REJECT == 0);
    let route = |entry: procfs_core::net::RouteEntry| {
        let prefix = u8::try_from(entry.mask.to_bits().leading_ones()).ok()?;
        Some(Route { network: Network::around(entry.destination.into(), prefix)?, device: entry.iface })
    };
    Ok(leads.filter_map(route).collect())
}

/// `DESTINATION PREFIX SOURCE PREFIX GATEWAY METRIC REFERENCES USES FLAGS DEVICE`, all but the last in hexadecimal digits.
/// procfs-core has no reader for it. A line that is none is skipped.
fn parse_v6(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, prefix, _, _, _, _, _, _, flags, device] = fields[..] else { return None };
        let address = Ipv6Addr::from_bits(u128::from_str_radix(destination, 16).ok()?);
        let network = Network::around(address.into(), u8::from_str_radix(prefix, 16).ok()?)?;
        let leads = u32::from_str_radix(flags, 16).ok()? & REJECT == 0;
        leads.then(|| Route { network, device: device.to_owned() })
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::super::networks::Subnet;
    use super::*;
    use proptest::prelude::*;

    fn network(name: &str, bridge: &str, subnets: &[&str]) -> DockerNetwork {
        let subnet = |text: &&str| Subnet { network: text.parse().unwrap(), maybe_auto: true };
        DockerNetwork {
            name: name.into(),
            driver: "bridge".into(),
            bridge: bridge.into(),
            subnets: subnets.iter().map(subnet).collect(),
            ..DockerNetwork::default()
        }
    }

    fn route(network: &str, device: &str) -> Route {
        Route { network: network.parse().unwrap(), device: device.into() }
    }

    /// Seen failing with each of the four conditions left out: the bridge itself, the default route, either cover.
    #[test]
    fn what_a_subnet_shares_with_another_way_out_is_named() {
        let networks = [
            network("app", "br-1", &["172.18.0.0/16", "fd00:1::/64"]),
            network("bridge", "docker0", &["172.17.0.0/16"]),
        ];
        let routes = [
            route("0.0.0.0/0", "eth0"),
            route("::/0", "eth0"),
            route("172.18.0.0/16", "br-1"),
            route("172.17.0.0/16", "docker0"),
            route("172.18.4.0/24", "wg0"),
            route("172.16.0.0/15", "eth0"),
            route("fd00:1::/64", "eth1"),
            route("192.168.0.0/24", "eth0"),
        ];
        let found: Vec<String> = clashes(&networks, &routes).into_iter().collect();
        assert_eq!(
            found,
            [
                "172.17.0.0/16 of bridge, and 172.16.0.0/15 by eth0",
                "172.18.0.0/16 of app, and 172.18.4.0/24 by wg0",
                "fd00:1::/64 of app, and fd00:1::/64 by eth1",
            ]
        );
    }

    /// The kernel prints an IPv4 address as the number that its four bytes are in memory. Read on a real host.
    #[test]
    fn routes_are_read_as_the_kernel_prints_them() {
        let hexadecimal = |address: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(address));
        let line = |device: &str, to: [u8; 4], flags: &str, mask: [u8; 4]| {
            format!("{device}\t{}\t00000000\t{flags}\t0\t0\t0\t{}\t0\t0\t0\n", hexadecimal(to), hexadecimal(mask))
        };
        let text = [
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n".to_owned(),
            line("eth0", [0, 0, 0, 0], "0003", [0, 0, 0, 0]),
            line("wg0", [172, 18, 4, 0], "0001", [255, 255, 255, 0]),
            line("*", [10, 0, 0, 0], "0201", [255, 0, 0, 0]),
        ];
        assert_eq!(parse_v4(&text.concat()), Ok(vec![route("0.0.0.0/0", "eth0"), route("172.18.4.0/24", "wg0")]));
        assert!(parse_v4("header\nnonsense\n").is_err());
        let zero = "00000000000000000000000000000000";
        let text = format!(
            "fd000001000000000000000000000000 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth1\n\
             fd000002000000000000000000000000 40 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(parse_v6(&text), [route("fd00:1::/64", "eth1")]);
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "([0-9a-fA-F*]{0,33}|\t| |\n|eth0){0,60}") {
            let _ = (parse_v4(&text), parse_v6(&text));
        }
    }
}
