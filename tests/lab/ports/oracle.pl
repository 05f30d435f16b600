# Ends with 0 when every address can be bound and listened on at once, the way dockerd does.
use Socket qw(:all);
my ($type, $port, @addresses) = @ARGV; my @keep;
for my $address (@addresses) {
    my $six = $address =~ /:/;
    socket(my $s, $six ? AF_INET6 : AF_INET, $type eq 'udp' ? SOCK_DGRAM : SOCK_STREAM, 0) or exit 1;
    setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) if $type eq 'tcp';
    setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 1) if $six;
    my $to = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $address)) : pack_sockaddr_in($port, inet_aton($address));
    bind($s, $to) or exit 1;
    if ($type eq 'tcp') { listen($s, 8) or exit 1 }
    push @keep, $s;
}
exit 0;
