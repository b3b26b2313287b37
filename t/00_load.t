use strict; use warnings;
use Apache::Test qw(-withtestmore);
use Apache::TestRequest qw(GET);

plan tests => 5;    # never need_module() of the module under test: it would skip, and be green
my $v = Apache::Test::vars();

my $list = GET('/server-info?list')->content;
like $list, qr/\bmod_session_ha\.c\b/, 'the module is loaded';
like $list, qr/^\s*$v->{mpm}\.c|\bmpm_\Q$v->{mpm}\E\b|\b\Q$v->{mpm}\E\.c/m, "the MPM is $v->{mpm}";
is GET('/session-ha-status?format=json')->code, 200, 'the status handler answers';

open my $log, '<', "$v->{t_logs}/error_log" or die $!;
my $text = do { local $/; <$log> };
like $text, qr/mod_session_ha: the state directory is \S+/, 'it says where it keeps what it keeps';
unlike $text, qr/session_ha:(?:warn|error|crit|alert|emerg)/, 'and has nothing to complain of';
