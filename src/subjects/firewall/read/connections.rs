//! The kernel's table of connections: who talks to whom, before and after addresses were rewritten.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft::find;
use crate::host::netlink::messages;
use crate::host::nfnetlink::GENERIC_BYTES;

/// One direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple {
    pub source: IpAddr,
    pub source_port: u16,
    pub destination: IpAddr,
    pub destination_port: u16,
}

/// A connection of TCP or UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// 6 for TCP, 17 for UDP.
    pub protocol: u8,
    /// As the one who began it sent it.
    pub original: Tuple,
    /// As answers come back: from where it really goes to.
    pub reply: Tuple,
    /// Of TCP: `TCP_CONNTRACK_ESTABLISHED` is 3 (`nf_conntrack_tcp.h`).
    pub tcp_state: Option<u8>,
}

impl Connection {
    pub fn is_established(&self) -> bool {
        const ESTABLISHED: u8 = 3;
        self.tcp_state == Some(ESTABLISHED)
    }
}

/// Reads what `host::nfnetlink::connections` hands on; other protocols and what is torn are left out.
pub fn parse(bytes: &[u8]) -> Vec<Connection> {
    messages(bytes).filter_map(|message| connection(message.payload.get(GENERIC_BYTES..)?)).collect()
}

fn connection(body: &[u8]) -> Option<Connection> {
    const ORIGINAL: u16 = 1;
    const REPLY: u16 = 2;
    const PROTOCOL_INFORMATION: u16 = 4;
    const TCP: u16 = 1;
    const STATE: u16 = 1;
    let (protocol, original) = tuple(find(body, ORIGINAL)?)?;
    let (_, reply) = tuple(find(body, REPLY)?)?;
    let state =
        find(body, PROTOCOL_INFORMATION).and_then(|information| find(find(information, TCP)?, STATE)?.first().copied());
    Some(Connection { protocol, original, reply, tcp_state: state })
}

fn tuple(bytes: &[u8]) -> Option<(u8, Tuple)> {
    const ADDRESSES: u16 = 1;
    const PROTOCOL: u16 = 2;
    let (addresses, protocol) = (find(bytes, ADDRESSES)?, find(bytes, PROTOCOL)?);
    let v4 = |number| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(find(addresses, number)?).ok()?)));
    let v6 = |number| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(find(addresses, number)?).ok()?)));
    let port = |number| Some(u16::from_be_bytes(find(protocol, number)?.try_into().ok()?));
    let tuple = Tuple {
        source: v4(1).or_else(|| v6(3))?,
        destination: v4(2).or_else(|| v6(4))?,
        source_port: port(2)?,
        destination_port: port(3)?,
    };
    Some((*find(protocol, 1)?.first()?, tuple))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::attribute;
    use proptest::prelude::*;

    fn one(source: &[u8], destination: &[u8], (v4, ports): (u16, [u16; 2])) -> Vec<u8> {
        let addresses = [attribute(v4, source), attribute(v4 + 1, destination)].concat();
        let protocol =
            [attribute(1, &[6]), attribute(2, &ports[0].to_be_bytes()), attribute(3, &ports[1].to_be_bytes())].concat();
        [attribute(1, &addresses), attribute(2, &protocol)].concat()
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(20 + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([0, 1, 2, 0]);
        bytes.extend([0; 12]);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn both_directions_are_read() {
        let body = [
            attribute(1, &one(&[203, 0, 113, 9], &[192, 0, 2, 1], (1, [40000, 6379]))),
            attribute(2, &one(&[172, 17, 0, 2], &[203, 0, 113, 9], (1, [6379, 40000]))),
            attribute(4, &attribute(1, &attribute(1, &[3]))),
        ]
        .concat();
        let read = parse(&message(&body));
        assert!(
            matches!(&read[..], [one] if one.is_established()
            && one.original.destination_port == 6379
            && one.reply.source == IpAddr::from([172, 17, 0, 2])),
            "{read:?}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left_out(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = parse(&message(&bytes));
        }
    }
}
