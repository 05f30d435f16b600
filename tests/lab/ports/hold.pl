# Binds, listens if told to, says "ready" and waits.
use Socket qw(:all); $| = 1;
my ($type, $address, $port, $reuse, $only, $listen) = @ARGV;
my $six = $address =~ /:/;
socket(my $s, $six ? AF_INET6 : AF_INET, $type eq 'udp' ? SOCK_DGRAM : SOCK_STREAM,
    $type eq 'mptcp' ? 262 : 0) or die "socket: $!";
setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1) if $reuse;
if ($six) { setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, $only + 0) or die "V6ONLY: $!" }
my $to = $six ? pack_sockaddr_in6($port, inet_pton(AF_INET6, $address)) : pack_sockaddr_in($port, inet_aton($address));
bind($s, $to) or die "bind: $!";
if ($listen) { listen($s, 8) or die "listen: $!" }
if ($ENV{LATER_USER}) { $( = $) = $ENV{LATER_USER}; $< = $> = $ENV{LATER_USER} }
print "ready\n"; sleep 300;
