//! What can be looked at of a packet.

/// What can be looked at of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// 2 for IPv4, 10 for IPv6.
    NfProto,
    /// The EtherType.
    EtherType,
    L4Proto,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    /// Flags and offset of IPv4.
    Fragment,
    TcpFlags,
    InName,
    OutName,
    InIndex,
    OutIndex,
    /// `PACKET_HOST` and so on.
    PacketType,
    Mark,
    /// Passed through IPsec.
    Secpath,
    /// Bits of nft: 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
    CtState,
    CtStatus,
    CtDirection,
    CtMark,
    CtProtocol,
    /// As `NfProto`, of the connection.
    CtFamily,
    CtOriginalSource,
    CtOriginalDestination,
    CtOriginalSourcePort,
    CtOriginalDestinationPort,
    CtReplySource,
    CtReplySourcePort,
    /// The kind of route to the destination: 1 unicast, 2 local, 3 broadcast, 5 multicast.
    FibDestinationType,
    /// The same as seen from the interface it came in by.
    FibDestinationTypeHere,
    FibSourceType,
    /// The interface that answers would take, 0 for none.
    FibSourceIndex,
    FibSourceName,
    /// Whether that is the interface it came in by.
    FibSourcePresent,
    /// Whether there is any such interface.
    FibSourceRouted,
}

impl Field {
    /// Its size in a register of nf_tables, where that is the same for both families.
    pub fn bytes(self) -> usize {
        match self {
            Self::NfProto
            | Self::L4Proto
            | Self::TcpFlags
            | Self::PacketType
            | Self::CtDirection
            | Self::CtProtocol
            | Self::CtFamily
            | Self::FibSourcePresent
            | Self::FibSourceRouted
            | Self::Secpath => 1,
            Self::EtherType
            | Self::SourcePort
            | Self::DestinationPort
            | Self::Fragment
            | Self::CtOriginalSourcePort
            | Self::CtOriginalDestinationPort
            | Self::CtReplySourcePort => 2,
            Self::InName | Self::OutName | Self::FibSourceName => 16,
            _ => 4,
        }
    }
}
