//! Networks in CIDR notation (RFC 4632, RFC 4291), and sets of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and how many of its leading bits count. The bits behind them are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    #[error("`{0}` is neither an address nor a network such as 172.20.0.0/16 or fd00:1::/64")]
    Malformed(String),
    #[error("`{text}` has bits set behind the prefix; the network is {network}")]
    HostBits { text: String, network: Network },
}

impl Network {
    /// The network around an address; `None` for a prefix longer than the address.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let width = width(address);
        (prefix <= width).then(|| Self { address: from_bits(bits(address) & mask(width, prefix), address), prefix })
    }

    pub fn address(self) -> IpAddr {
        self.address
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether an address lies inside. An IPv4 address in IPv6 clothes (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        Self::around(address, self.prefix).is_some_and(|network| network == self && address.is_ipv4() == self.is_ipv4())
    }

    /// Whether the whole of another network lies inside.
    pub fn covers(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address) && self.is_ipv4() == other.is_ipv4()
    }

    /// The fewest networks that hold exactly the same addresses, IPv4 first, each in order. Rule sets print the addresses
    /// of a set in forms of their own: in this form they can be compared.
    pub fn aggregate(networks: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        let mut networks: Vec<Self> = networks.into_iter().collect();
        networks.sort_unstable();
        networks.dedup();
        for network in networks {
            if found.last().is_some_and(|last| last.covers(network)) {
                continue;
            }
            found.push(network);
            // Two halves are a whole, which may be the second half of another.
            while let [.., left, right] = found.as_slice()
                && let Some(whole) = left.joined(*right)
            {
                found.truncate(found.len() - 2);
                found.push(whole);
            }
        }
        found
    }

    /// The networks that together are the addresses from `first` to `last`; none when they are of two families or in the
    /// wrong order.
    pub fn of_range(first: IpAddr, last: IpAddr) -> Vec<Self> {
        let mut networks = Vec::new();
        if first.is_ipv4() != last.is_ipv4() {
            return networks;
        }
        let width = width(first);
        let (mut at, end) = (bits(first), bits(last));
        while at <= end {
            // The largest block that begins here and does not reach beyond the end.
            let mut free = u8::try_from(at.trailing_zeros()).unwrap_or(width).min(width);
            while free > 0 && ones(free) > end - at {
                free -= 1;
            }
            networks.push(Self { address: from_bits(at, first), prefix: width - free });
            match at.checked_add(ones(free)).and_then(|last| last.checked_add(1)) {
                Some(next) => at = next,
                None => break,
            }
        }
        networks
    }

    fn joined(self, right: Self) -> Option<Self> {
        if self.prefix != right.prefix || self.prefix == 0 || self.is_ipv4() != right.is_ipv4() {
            return None;
        }
        let whole = Self::around(self.address, self.prefix - 1)?;
        (whole.address == self.address && whole.contains(right.address) && self != right).then_some(whole)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// An address of the family of `like`.
fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

/// As many low bits as there are in a block with that many free bits.
fn ones(free: u8) -> u128 {
    if free >= 128 { u128::MAX } else { (1 << free) - 1 }
}

fn mask(width: u8, prefix: u8) -> u128 {
    ones(width) & !ones(width - prefix)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// `172.20.0.0/16`, `fd00:1::/64`, or an address alone.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let malformed = || NetworkError::Malformed(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let prefix = match prefix {
            // A sign or a leading zero is no prefix, though it is a number.
            Some(digits)
                if digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0')) =>
            {
                digits.parse().map_err(|_| malformed())?
            }
            Some(_) => return Err(malformed()),
            None => width(address),
        };
        let network = Self::around(address, prefix).ok_or_else(malformed)?;
        if network.address == address {
            Ok(network)
        } else {
            Err(NetworkError::HostBits { text: text.to_owned(), network })
        }
    }
}

/// Who may reach the workload's ports, one entry of the parameter `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Network(Network),
    /// The networks that Docker has on this host, whichever these are.
    DockerNetworks,
}

/// How the networks of Docker are written in `allow`.
pub const DOCKER_NETWORKS: &str = "docker:networks";

impl FromStr for Allowed {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == DOCKER_NETWORKS { Ok(Self::DockerNetworks) } else { text.parse().map(Self::Network) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_are_read_as_people_write_them() {
        for (text, shown) in [
            ("172.20.0.0/16", "172.20.0.0/16"),
            ("203.0.113.50", "203.0.113.50/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("fd00:1::/64", "fd00:1::/64"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
        ] {
            assert_eq!(network(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_one_that_was_meant() {
        assert_eq!(
            "172.20.0.1/16".parse::<Network>().unwrap_err().to_string(),
            "`172.20.0.1/16` has bits set behind the prefix; the network is 172.20.0.0/16"
        );
        for text in
            ["", "/", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/08", "::/129", "10.0/8", "a", "1.2.3.4 "]
        {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::Malformed(_))), "{text:?}");
        }
    }

    #[test]
    fn an_address_lies_in_its_own_family_only() {
        assert!(network("172.20.0.0/16").contains("172.20.255.255".parse().unwrap()));
        assert!(!network("172.20.0.0/16").contains("172.21.0.0".parse().unwrap()));
        assert!(network("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(!network("::/0").contains("10.0.0.1".parse().unwrap()));
        assert!(!network("::/0").covers(network("10.0.0.0/8")));
    }

    #[test]
    fn halves_become_wholes() {
        let of = |texts: &[&str]| {
            let found = Network::aggregate(texts.iter().map(|text| network(text)));
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&["10.0.0.0/25", "10.0.0.128/25"]), ["10.0.0.0/24"]);
        assert_eq!(of(&["10.0.0.128/25", "10.0.1.0/24", "10.0.0.0/25"]), ["10.0.0.0/23"]);
        assert_eq!(of(&["10.0.0.0/8", "10.1.0.0/16", "::/0", "fd00::/8"]), ["10.0.0.0/8", "::/0"]);
        assert_eq!(of(&["10.0.1.0/24", "10.0.2.0/24"]), ["10.0.1.0/24", "10.0.2.0/24"]);
        assert_eq!(of(&["0.0.0.0/1", "128.0.0.0/1"]), ["0.0.0.0/0"]);
    }

    fn any_network() -> impl Strategy<Value = Network> {
        prop_oneof![
            (any::<u32>(), 0_u8..=32).prop_map(|(bits, prefix)| (IpAddr::from(Ipv4Addr::from_bits(bits)), prefix)),
            (any::<u128>(), 0_u8..=128).prop_map(|(bits, prefix)| (IpAddr::from(Ipv6Addr::from_bits(bits)), prefix)),
            // Close to each other, so that they touch and overlap.
            (0_u32..64, 24_u8..=32)
                .prop_map(|(low, prefix)| (IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + low * 4)), prefix)),
        ]
        .prop_map(|(address, prefix)| Network::around(address, prefix).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(network in any_network()) {
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }

        #[test]
        fn aggregation_keeps_every_address_and_adds_none(
            networks in proptest::collection::vec(any_network(), 0..12),
            probe in 0_u32..300,
        ) {
            let together = Network::aggregate(networks.iter().copied());
            let probe = IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + probe));
            let covered = |networks: &[Network]| networks.iter().any(|network| network.contains(probe));
            prop_assert_eq!(covered(&networks), covered(&together));
            prop_assert_eq!(Network::aggregate(together.iter().copied()), together);
        }

        #[test]
        fn a_range_is_its_networks(first in any::<u32>(), length in 0_u32..5000, probe in 0_u32..6000) {
            let last = first.saturating_add(length);
            let address = |bits: u32| IpAddr::from(Ipv4Addr::from_bits(bits));
            let networks = Network::of_range(address(first), address(last));
            let probe = first.saturating_add(probe);
            let inside = networks.iter().any(|network| network.contains(address(probe)));
            prop_assert_eq!(inside, probe <= last);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}|[0-9a-f.:/]{0,40}") {
            let _ = text.parse::<Allowed>();
        }
    }
}
