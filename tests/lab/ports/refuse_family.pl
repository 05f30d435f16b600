# Refuses one address family to everything it starts: `socket(2)` fails with the errno given. seccomp(2).
my ($family, $errno, @command) = @ARGV;
my ($arm) = grep { /aarch64/ } `uname -m`;
my ($seccomp, $socket) = $arm ? (277, 198) : (317, 41);
my $filter = join '', map { pack 'SCCL', @$_ } (
    [0x20, 0, 0, 0], [0x15, 0, 3, $socket], [0x20, 0, 0, 16], [0x15, 0, 1, $family],
    [0x06, 0, 0, 0x00050000 | $errno], [0x06, 0, 0, 0x7fff0000]);
my $program = pack 'SxxxxxxP', 6, $filter;
syscall($seccomp, 1, 0, $program) == 0 or die "seccomp: $!";
exec @command or die "exec: $!";
