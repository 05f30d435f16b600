//! Networks in CIDR notation (RFC 4632, RFC 4291).

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
    /// No packet has such an address, so that a rule with it lets nobody in.
    #[error("`{0}` is IPv4 written as IPv6; write it as IPv4")]
    Mapped(String),
}

impl Network {
    /// The network around an address; `None` for a prefix longer than the address.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let width = width(address);
        (prefix <= width).then(|| Self { address: from_bits(bits(address) & mask(width, prefix), address), prefix })
    }

    /// The first address: all bits behind the prefix are zero.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address of the same family lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && bits(address) & mask(width(address), self.prefix) == bits(self.address)
    }

    /// The fewest networks that hold exactly the addresses from one to another of the same family, in their order.
    pub fn spanning(first: IpAddr, last: IpAddr) -> Vec<Self> {
        let (width, end) = (width(first), bits(last));
        let mut at = bits(first);
        let mut networks = Vec::new();
        while at <= end && networks.len() < 256 {
            // As large as the alignment of the first address and what is left allow.
            let aligned = u8::try_from(at.trailing_zeros().min(u32::from(width))).unwrap_or(width);
            let mut free = aligned;
            while free > 0 && (end - at) < ones(free) {
                free -= 1;
            }
            networks.extend(Self::around(from_bits(at, first), width - free));
            match at.checked_add(ones(free)).and_then(|last| last.checked_add(1)) {
                Some(next) => at = next,
                None => break,
            }
        }
        networks
    }

    /// Whether all of another network lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.address)
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

/// The prefix of `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).
const MAPPED: u8 = 96;

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
        if prefix >= MAPPED && matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
            return Err(NetworkError::Mapped(text.to_owned()));
        }
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
        // Seen failing without the arm: a guard that lets nobody in was committed.
        for text in ["::ffff:10.0.0.0/104", "::ffff:0:0/96", "::ffff:10.1.2.3"] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Mapped(text.to_owned())));
        }
        assert!("::/0".parse::<Network>().is_ok() && "fd00::/104".parse::<Network>().is_ok());
    }

    fn any_network() -> impl Strategy<Value = Network> {
        prop_oneof![
            (any::<u32>(), 0_u8..=32).prop_map(|(bits, prefix)| (IpAddr::from(Ipv4Addr::from_bits(bits)), prefix)),
            (any::<u128>(), 0_u8..=128).prop_map(|(bits, prefix)| (IpAddr::from(Ipv6Addr::from_bits(bits)), prefix)),
        ]
        .prop_map(|(address, prefix)| Network::around(address, prefix).unwrap())
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(network in any_network()) {
            prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
        }

        #[test]
        fn a_network_spans_itself(network in any_network()) {
            let last = from_bits(bits(network.address) | ones(width(network.address) - network.prefix), network.address);
            prop_assert_eq!(Network::spanning(network.address, last), vec![network]);
        }

        #[test]
        fn no_text_panics(text in ".{0,40}|[0-9a-f.:/]{0,40}") {
            let _ = text.parse::<Allowed>();
        }
    }
}
