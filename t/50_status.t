# What the manager shows, in a real httpd: session-ha-status in its three formats, the section of the
# balancer-manager page and of its XML, the lines of mod_status; names that want to be markup; restarts.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Compress::Zlib ();
use Digest::SHA qw(sha256_hex);
use IO::Socket::INET;
use JSON::PP ();
use Time::HiRes qw(sleep);
use Backend;
use Daemon;
use Site ();

plan tests => 127;

my $v = Apache::Test::vars();
my $NASTY = q{b2<&'">\\};                   # a route, as the operator may well write it
my $CELL = 'b2&#60;&#38;&#39;&#34;&#62;\\\\';

sub free_port { IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 1)->sockport }
my %port = map { $_ => free_port() } qw(httpd b1 b2 store);
sub backend { my $n = shift; Backend->start(port => $port{$n}, app => sub { (200, [], "$n\n") }) }
my $b1 = backend('b1');
my $b2 = backend('b2');
my $node = Daemon->memcached($port{store});
my $secret = "$v->{t_logs}/status.secret";
open my $sh, '>', $secret or die "$secret: $!";
chmod 0600, $secret;
print $sh sha256_hex(rand), "\n";
close $sh;

sub conf {
    my ($more) = @_;
    (my $route = $NASTY) =~ s/([\\"])/\\$1/g;
    return <<C;
ServerLimit 4
TraceEnable Off
SessionHAStore memcached://127.0.0.1:$port{store}
SessionHASecret file:$secret
$more
<Proxy "balancer://app">
  BalancerMember http://127.0.0.1:$port{b1} route=b1 retry=60
  BalancerMember http://127.0.0.1:$port{b2} "route=$route" retry=60
  ProxySet stickysession=JSESSIONID|jsessionid
  SessionHA On
  SessionHABackup native
  SessionHANative none
</Proxy>
<Location "/balancer-manager">
  SetHandler balancer-manager
</Location>
<Location "/small/balancer-manager">
  SetHandler balancer-manager
  SetOutputFilter DEFLATE
</Location>
<Location "/session-ha-status">
  SetHandler session-ha-status
</Location>
<Location "/forbidden">
  SetHandler session-ha-status
  Require all denied
</Location>
<Location "/server-status">
  SetHandler server-status
</Location>
ProxyPass "/app/" "balancer://app/"
C
}
my $httpd = Daemon->httpd($port{httpd}, conf(''));

sub graceful {
    my ($more) = @_;
    my $count = sub { open my $fh, '<', "$httpd->{dir}/error_log" or return 0; scalar grep { /resuming normal/ } <$fh> };
    my $before = $count->();
    Daemon->httpd_conf($port{httpd}, conf($more));
    kill USR1 => $httpd->pid;
    for (1 .. 400) { last if $count->() > $before; sleep 0.05 }
    die "no graceful restart\n" unless $count->() > $before;
}
# A child of before the restart may still answer for a moment, from what it knows.
sub settled {
    my ($entries) = @_;
    for (1 .. 100) { last if @{ status()->{journal} } == $entries; sleep 0.05 }
}

# { status, head, body }; the whole of what came, so that a wrong length shows
sub ask {
    my ($path, %o) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port{httpd}) or die "connect: $!";
    my $m = $o{method} // 'GET';
    my $body = $o{body} // '';
    print $s "$m $path HTTP/1.1\r\nHost: 127.0.0.1:$port{httpd}\r\nConnection: close\r\n",
        (map { "$_\r\n" } @{ $o{head} || [] }), ($body ne '' ? 'Content-Length: ' . length($body) . "\r\n" : ''), "\r\n$body";
    local $/;
    my ($head, $rest) = split /\r\n\r\n/, scalar(<$s>) // '', 2;
    my %h = map { /^([^:]+):\s*(.*)/ ? (lc $1 => $2) : () } split /\r\n/, $head;
    return { status => ($head =~ m{\AHTTP/1.1 (\d+)})[0], head => \%h, body => $rest };
}
sub status { JSON::PP::decode_json(ask('/session-ha-status?format=json')->{body}) }

# Prometheus' text format, strictly: [name, {labels}, value] each, and what is wrong
sub metrics {
    my ($text) = @_;
    my (@rows, @wrong, %type, %help, %seen, $family);
    push @wrong, 'no newline at the end' unless $text =~ /\n\z/;
    for my $line (split /\n/, $text) {
        if ($line =~ /^# HELP (\w+) \S/) { push @wrong, "HELP twice: $1" if $help{$1}++; next }
        if ($line =~ /^# TYPE (\w+) (counter|gauge|histogram)$/) {
            push @wrong, "TYPE twice: $1" if $type{$1};
            ($type{ $family = $1 }) = $2;
            next;
        }
        my ($name, $labels, $value) = $line =~ /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\d+(?:\.\d+)?)$/
            or push(@wrong, "no sample: $line"), next;
        (my $base = $name) =~ s/_(?:bucket|sum|count)$// if ($type{$family} // '') eq 'histogram';
        push @wrong, "$name outside of its family" if ($base // $name) ne $family or !$help{$family};
        push @wrong, "$name is a counter without _total" if $type{$family} eq 'counter' && $name !~ /_total$/;
        my %l;
        my $rest = $labels // '';
        while ($rest =~ s/^([a-zA-Z_]\w*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)//) {
            push @wrong, "label $1 twice" if exists $l{$1};
            my ($k, $val) = ($1, $2);
            $val =~ s/\\(.)/$1 eq 'n' ? "\n" : $1/ge;
            $l{$k} = $val;
        }
        push @wrong, "labels: $labels" if $rest ne '';
        push @wrong, "twice: $line" if $seen{ "$name " . ($labels // '') }++;
        push @rows, [$name, \%l, $value];
    }
    return (\@rows, \@wrong);
}
sub metric {
    my ($rows, $name, %want) = @_;
    my @found = grep { my $r = $_; $r->[0] eq $name && !grep { ($r->[1]{$_} // "\0") ne $want{$_} } keys %want } @$rows;
    return @found == 1 ? $found[0][2] : @found . ' of them';
}

# Is it well-formed? Tags closed in order, entities known, no stray < or &. "" or what is wrong.
sub xml_fault {
    my ($xml) = @_;
    my @open;
    $xml =~ s/\A<\?xml [^?]*\?>\s*// or return 'no declaration';
    while ($xml =~ /\G(?:<(\/?)([A-Za-z_][\w:]*)((?: [\w:]+='[^'<]*')*)>|([^<]+)|(.))/gs) {
        return "stray '$5'" if defined $5;
        if (defined $4) {
            my $text = $4;
            return "entity in '$text'" if $text =~ /&(?!(?:amp|lt|gt|quot|apos|#\d+);)/;
            return 'control character' if $text =~ /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xff]/;
            return 'text outside' if !@open && $text =~ /\S/;
        }
        elsif ($1) { my $t = pop @open // ''; return "</$2> closes <$t>" if $t ne $2 }
        else { push @open, $2 }
    }
    return @open ? "@open not closed" : '';
}
is xml_fault("<?xml version='1.0'?>\n<a:b x='1'><c>&#60;</c></a:b>"), '', 'the checker takes good XML';
isnt xml_fault("<?xml version='1.0'?>\n<a><b></a></b>"), '', 'and not crossed tags';
isnt xml_fault("<?xml version='1.0'?>\n<a>&nbsp;</a>"), '', 'nor unknown entities';

# ---- nothing has happened ------------------------------------------------------------

my $r = ask('/session-ha-status?format=json');
is $r->{status}, 200, 'JSON';
is $r->{head}{'content-type'}, 'application/json', 'its type';
is $r->{head}{'cache-control'}, 'no-store', 'not stored';
is $r->{head}{'content-length'}, length $r->{body}, 'its length';
is $r->{head}{vary}, undef, 'no Vary when the URL says the format';
my $s = eval { JSON::PP::decode_json($r->{body}) } or diag $@;
is_deeply [sort keys %$s], [qw(balancers journal stores version)], 'its four parts';
like $r->{body}, qr/\A\{"version": ".*"balancers": \[.*"stores": \[.*"journal": \[/s, 'in order';
my ($bal) = @{ $s->{balancers} };
is $bal->{name}, 'balancer://app', 'balancer';
is $bal->{sticky}, 'JSESSIONID|jsessionid', 'sticky';
is_deeply [map { $_->{route} } @{ $bal->{members} }], ['b1', $NASTY], 'members, names as they were written';
is $bal->{members}[0]{name}, "http://127.0.0.1:$port{b1}", 'a member is its URL';
unlike $bal->{members}[0]{state}, qr/\s\z/, 'state';
is $bal->{members}[0]{last_failover}, undef, 'last_failover is null';
like $r->{body}, qr/"route": "b1", "state": "[^"]*", "moved_out": 0, "moved_in": 0, "restored": 0, "native": 0, "missing": 0, "unavailable": 0, "refused": 0, "retried": 0, "last_failover": null\}/,
    'a member to the letter';
is_deeply $s->{journal}, [], 'an empty journal';
{
    my $state = sub { my ($port, $want) = @_; for (1 .. 100) {
        my $is = JSON::PP::decode_json((bless { port => $port }, 'Site')->get('/session-ha-status?format=json')->{body})->{stores}[0]{state};
        return $is if $is eq $want || $_ == 100;
        select undef, undef, undef, 0.1 } };
    is $state->($port{httpd}, 'up'), 'up', 'the store is up, before anybody needed it';
    my ($front, $nobody) = (free_port(), free_port());
    my $other = Daemon->httpd($front, conf('') =~ s/\Q:$port{store}\E/:$nobody/r);
    is $state->($front, 'down'), 'down', 'and one that is not there is down';
    $other->end;
}
is $s->{stores}[0]{node}, "memcached://127.0.0.1:$port{store}", 'the store';
like $r->{body}, qr/"node": "[^"]*", "state": "[^"]*", "gets": \d+, "hits": \d+, "misses": \d+, "puts": \d+, "adds": \d+, "errors": \d+, "timeouts": \d+, "p50_us": \d+, "p99_us": \d+, "restarts": 0, "evictions": 0, "damages": 0, "last_forgot": null\}/,
    'a store to the letter';

# ---- a failover ----------------------------------------------------------------------

my $id = 'SECRETID0123456789';
my $cookie = "Cookie: JSESSIONID=$id.b1";
is ask('/app/', head => [$cookie])->{body}, "b1\n", 'a session at b1';
$b1->kill9;
is ask('/app/', head => [$cookie])->{body}, "b2\n", 'b1 is killed: b2 answers';
$s = status();
my ($m1, $m2) = @{ $s->{balancers}[0]{members} };
is $m1->{moved_out}, 1, 'b1: moved out';
is $m2->{moved_in}, 1, 'b2: moved in';
is $m2->{native}, 1, 'b2: native';
is $m1->{moved_in} + $m1->{native} + $m2->{moved_out} + $m2->{restored} + $m2->{missing}, 0, 'nothing else';
like $m1->{last_failover}, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\z/, 'last_failover';
is $m2->{last_failover}, $m1->{last_failover}, 'at both';
my $entry = $s->{journal}[0];
is @{ $s->{journal} }, 1, 'one entry in the journal';
is_deeply [sort keys %$entry], [sort qw(time balancer session from to cause outcome epoch seq bytes took_us)], 'its fields';
is_deeply [@$entry{qw(balancer from to outcome)}], ['balancer://app', 'b1', $NASTY, 'native'], 'what it says';
is $entry->{session}, substr(sha256_hex("balancer://app\0$id"), 0, 12), 'the session is a digest';
is $entry->{time}, $m1->{last_failover}, 'its time';
my $json = ask('/session-ha-status?format=json')->{body};
like $json, qr/\{"time": "[^"]*Z", "balancer": "[^"]*", "session": "[0-9a-f]{12}", "from": "b1", "to": "b2[^,]*", "cause": "\w+", "outcome": "native", "epoch": \d+, "seq": \d+, "bytes": \d+, "took_us": \d+\}/,
    'an entry to the letter';
unlike $json, qr/[<>&]/, 'no markup in JSON, should a browser guess';

# ---- Prometheus ------------------------------------------------------------------------

$r = ask('/session-ha-status?format=prometheus');
is $r->{head}{'content-type'}, 'text/plain; version=0.0.4; charset=utf-8', 'Prometheus: type';
my ($rows, $wrong) = metrics($r->{body});
is_deeply $wrong, [], 'strictly well-formed';
is metric($rows, 'session_ha_failovers_total', balancer => 'balancer://app', from => 'b1', to => $NASTY, outcome => 'native'),
    1, 'session_ha_failovers_total, the name unescaped is the name';
my %node = (node => "memcached://127.0.0.1:$port{store}");
is metric($rows, 'session_ha_store_up', %node), 1, 'session_ha_store_up';
like metric($rows, 'session_ha_retries_total'), qr/\A\d+\z/, 'session_ha_retries_total';
is metric($rows, 'session_ha_backups_total', balancer => 'balancer://app', result => 'stored'), 0, 'session_ha_backups_total';
my $st = $s->{stores}[0];
is metric($rows, 'session_ha_store_operations_total', %node, op => 'get', result => 'hit'), $st->{hits}, 'operations: hits';
is metric($rows, 'session_ha_store_operations_total', %node, op => 'add', result => 'asked'), $st->{adds}, 'operations: adds';
ok $st->{adds} > 0, 'there was one';
my @le = grep { $_->[0] eq 'session_ha_store_seconds_bucket' } @$rows;
ok @le > 10 && $le[-1][1]{le} eq '+Inf', 'session_ha_store_seconds: a histogram that ends at +Inf';
is_deeply [map { $_->[2] } @le], [sort { $a <=> $b } map { $_->[2] } @le], 'cumulative';
is_deeply [map { $_->[1]{le} } @le[0 .. $#le - 1]], [sort { $a <=> $b } map { $_->[1]{le} } @le[0 .. $#le - 1]], 'bounds ascend';
is metric($rows, 'session_ha_store_seconds_count', %node), $le[-1][2], 'its count';
ok metric($rows, 'session_ha_store_seconds_sum', %node) > 0, 'its sum';

# ---- which format ------------------------------------------------------------------------

for (
    ['html', qr{^text/html}], ['json', qr{^application/json$}], ['prometheus', qr{^text/plain; version=0\.0\.4}],
) {
    like ask("/session-ha-status?format=$_->[0]")->{head}{'content-type'}, $_->[1], "format=$_->[0]";
}
is ask('/session-ha-status?format=yaml')->{status}, 400, 'a format that does not exist';
for (
    [undef, 'html'], ['*/*', 'html'], ['image/png', 'html'], ['application/json', 'json'],
    ['text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8', 'html'],
    ['application/json, text/plain, */*', 'json'], ['application/json;q=0.5, */*', 'html'], ['application/json;q=0', 'html'],
    ['application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1', 'plain'],
    [',;q=,;;q=x,text/plain;q=', 'html'],
) {
    my ($accept, $want) = @$_;
    $r = ask('/session-ha-status', head => [defined $accept ? "Accept: $accept" : ()]);
    like $r->{head}{'content-type'}, qr{/\Q$want\E}, 'Accept: ' . ($accept // 'none');
}
is $r->{head}{vary}, 'Accept', 'Vary';

my $get = ask('/session-ha-status?format=json');
$r = ask('/session-ha-status?format=json', method => 'HEAD');
is $r->{body}, '', 'HEAD: no body';
is $r->{head}{'content-length'}, $get->{head}{'content-length'}, 'HEAD: the same length';
for my $m (qw(POST PUT DELETE)) {
    $r = ask('/session-ha-status', method => $m, body => 'x=1');
    is $r->{status}, 405, "$m is refused";
    is join(',', sort split /,\s*/, $r->{head}{allow}), 'GET,HEAD,OPTIONS', 'and Allow says what is not';
}
is ask('/forbidden')->{status}, 403, 'Require is in charge of it';

# ---- pages -------------------------------------------------------------------------------

$r = ask('/session-ha-status');
like $r->{body}, qr/\A<!DOCTYPE html>.*<\/html>\s*\z/s, 'the status page';
like $r->{body}, qr/Session failover \(mod_session_ha [\d.]+\)/, 'its heading';
like $r->{body}, qr/<td>$CELL<\/td>/, 'a name is not markup';
unlike $r->{body}, qr/b2</, 'nowhere';

$r = ask('/balancer-manager');
is $r->{head}{'content-length'}, length $r->{body}, 'balancer-manager: its length';
like $r->{body}, qr/LoadBalancer Status for.*Session failover \(mod_session_ha [\d.]+\).*<\/body><\/html>\s*\z/s, 'the section is its last';
like $r->{body}, qr/Session failover of balancer:\/\/app<.*<td>b1<\/td><td>[^<]*<\/td><td>1<\/td><td>0<\/td>/s, 'the failover table';
like $r->{body}, qr/<td>memcached:\/\/127\.0\.0\.1:$port{store}<\/td><td>up<\/td>/, 'the stores';
like $r->{body}, qr/<td>$entry->{session}<\/td><td>b1<\/td><td>$CELL<\/td>/, 'the journal';
my $head = ask('/balancer-manager', method => 'HEAD');
is $head->{status}, 200, 'HEAD';
is $head->{head}{'content-length'}, length $r->{body}, 'HEAD: the same length';
my $small = ask('/small/balancer-manager', head => ['Accept-Encoding: gzip']);
is $small->{head}{'content-encoding'}, 'gzip', 'compressed';
is $small->{head}{'content-length'}, length $small->{body}, 'its length';
like Compress::Zlib::memGunzip($small->{body}), qr/Session failover of.*<\/body><\/html>\s*\z/s, 'with the section';

my $referer = "Referer: http://127.0.0.1:$port{httpd}/balancer-manager";
my $xml = ask('/balancer-manager?xml=1', head => [$referer]);
like $xml->{head}{'content-type'}, qr{^text/xml}, '?xml=1';
is $xml->{head}{'content-length'}, length $xml->{body}, 'its length';
is xml_fault($xml->{body}), '', 'well-formed';
like $xml->{body}, qr{</httpd:balancers>\s*<httpd:sessionha>.*</httpd:sessionha>\s*</httpd:manager>\s*\z}s, 'the section is its last';
like $xml->{body}, qr{<httpd:route>b1</httpd:route>\s*<httpd:state>[^<]*</httpd:state>\s*<httpd:moved_out>1</httpd:moved_out>}, 'members';
like $xml->{body}, qr{<httpd:to>$CELL</httpd:to>}, 'the journal';

my ($nonce) = $r->{body} =~ /\?b=app&amp;nonce=([-0-9a-f]+)/;
my $form = ask("/balancer-manager?b=app&w=http://127.0.0.1:$port{b1}&nonce=$nonce", head => [$referer]);
like $form->{body}, qr/Edit worker settings.*<\/form>.*Session failover \(/s, 'the form to edit a member is as it was';
my $post = ask('/balancer-manager', method => 'POST', head => [$referer, 'Content-Type: application/x-www-form-urlencoded'],
    body => "b=app&w=http://127.0.0.1:$port{b1}&nonce=$nonce&w_status_D=1");
is $post->{status}, 200, 'and it works';
like status()->{balancers}[0]{members}[0]{state}, qr/Dis/, 'the state of a member is the page\'s own';
unlike ask('/balancer-manager', method => 'DELETE')->{body}, qr/Session failover/, 'an error page gets no section';

my $auto = ask('/server-status?auto')->{body};
like $auto, qr/^SessionHAFailovers: 1$/m, 'mod_status ?auto';
like $auto, qr/^SessionHANative: 1$/m, 'by outcome';
like $auto, qr/^SessionHAStoresUp: 1$/m, 'stores';
like ask('/server-status')->{body}, qr/Session failover \(mod_session_ha.*<table.*<\/html>/s, 'mod_status as HTML';

# ---- a node forgets ------------------------------------------------------------------------

sub log_lines { my $re = shift; open my $fh, '<', "$httpd->{dir}/error_log" or return 0; scalar grep { $_ =~ $re } <$fh> }
sub until_store { my ($is) = @_; for (1 .. 150) { my $st = status()->{stores}[0]; return $st if $is->($st); sleep 0.1 } return {} }
like ask('/session-ha-status')->{body}, qr/<td>never<\/td><\/tr>\s*<\/table>\s*<h3>Last failovers/, 'the store has forgotten nothing';
my $forgot = {};
for (1 .. 3) {              # on a busy machine it may not have been asked before it is killed
    $node->kill9;
    $node = Daemon->memcached($port{store});
    last if ($forgot = until_store(sub { $_[0]{restarts} }))->{restarts};
}
is $forgot->{restarts}, 1, 'killed and started again, with no request in between: noticed';
like $forgot->{last_forgot}, qr/\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\z/, 'and when';
my $told = qr/\[session_ha:warn\].* the store's node memcached:\/\/127\.0\.0\.1:$port{store} forgot: restarted/;
for (1 .. 100) { last if log_lines($told); sleep 0.1 }
is log_lines($told), 1, 'one line in the log, whatever number of children';
like ask($_)->{body}, qr/<td>\Q$forgot->{last_forgot}\E: restarted 1<\/td><\/tr>/, "$_ shows it" for '/session-ha-status', '/balancer-manager';
like ask('/balancer-manager?xml=1', head => [$referer])->{body}, qr{<httpd:restarts>1</httpd:restarts>.*<httpd:last_forgot>\Q$forgot->{last_forgot}\E</httpd:last_forgot>}s,
    'so does its XML';
($rows, $wrong) = metrics(ask('/session-ha-status?format=prometheus')->{body});
is metric($rows, 'session_ha_store_forgot_total', %node, why => 'restarted'), 1, 'and Prometheus';
is metric($rows, 'session_ha_store_forgot_total', %node, why => 'evicted'), 0, 'nothing was evicted';
ask('/app/', head => [$cookie]);
is until_store(sub { $_[0]{state} eq 'up' })->{state}, 'up', 'the node is used again';

# ---- restarts ------------------------------------------------------------------------------

graceful('');
my $after = status();
is_deeply [map { my $m = $_; [map { $m->{$_} } qw(route moved_out moved_in native last_failover)] } @{ $after->{balancers}[0]{members} }],
    [map { my $m = $_; [map { $m->{$_} } qw(route moved_out moved_in native last_failover)] } $m1, $m2], 'counters survive a graceful restart';
is_deeply $after->{journal}, $s->{journal}, 'and the journal';
for my $n (1 .. 4) {
    is ask('/app/', head => ["Cookie: JSESSIONID=other$n.b1"])->{body}, "b2\n", "failover $n";
}
my $full = status()->{journal};
is @$full, 5, 'the journal grows';
graceful('SessionHAJournal 2');
settled(2);
is_deeply status()->{journal}, [@$full[0, 1]], 'a shorter journal keeps the newest';
graceful('SessionHAJournal 7');
sleep 0.5;
settled(2);
is_deeply status()->{journal}, [@$full[0, 1]], 'a longer one all it had';
is status()->{balancers}[0]{members}[1]{moved_in}, 5, 'the counters were not touched';

# a client names a route that no member has
for my $n (1 .. 20) { ask('/app/', head => ["Cookie: JSESSIONID=x$n.<evil$n>"]) }
($rows, $wrong) = metrics(ask('/session-ha-status?format=prometheus')->{body});
is_deeply $wrong, [], 'strictly well-formed';
is scalar(grep { ($_->[1]{from} // '') =~ /evil/ } @$rows), 0, 'a route that a client made up makes no series';
unlike ask('/balancer-manager')->{body}, qr/<evil/, 'nor markup';

my $all = join '', map { ask($_)->{body} } '/session-ha-status?format=json', '/session-ha-status?format=prometheus',
    '/session-ha-status', '/balancer-manager', '/server-status?auto';
unlike $all, qr/$id|other\d/, 'no session id anywhere';

$httpd->end;
