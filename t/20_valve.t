# The Tomcat Valve against doc/protocol.md, on real Tomcats, with no httpd between: the test speaks httpd's part.
#   prove -It/lib t/20_valve.t      (VALVE_JAR, TOMCAT_HOME, HA_BUILD: see t/lib/Tomcat.pm)

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use lib dirname(abs_path(__FILE__)) . '/lib';
use Digest::SHA qw(hmac_sha256 sha256_hex);
use File::Temp ();
use MIME::Base64 qw(encode_base64 decode_base64);
use Test::More;
use Time::HiRes qw(sleep time);
use Ajp;
use Tomcat;

my $WELL_KNOWN = '/.well-known/session-backup';
my $ACCEPT = 'v=1, inline=4096';
my $secret = 'the secret of the tests, 32 bytes';
my $secret_dir = File::Temp->newdir(TMPDIR => 1);
my $secret_file = "$secret_dir/secret";
write_file($secret_file, "  $secret\n\n");
my %ids;                # every id seen: none may be in a log

sub write_file {
    my ($file, $text) = @_;
    open my $out, '>', $file or die "$file: $!\n";
    print $out $text;
    close $out or die "$file: $!\n";
}

# ---- httpd's part of the protocol --------------------------------------------------

sub b64 { encode_base64($_[0], '') }
sub mac { my ($message, $key) = @_; b64(hmac_sha256($message, defined $key ? $key : $secret)) }

sub restore_mac {
    my ($id, $epoch, $seq, $state, $key) = @_;
    return mac(join("\n", 'restore', $id, $epoch, $seq, $state), $key);
}

sub restore_field {
    my ($id, $epoch, $seq, $state, $key) = @_;
    return qq(id="$id", epoch=$epoch, seq=$seq, state=:) . b64($state) . ':, mac=:' . restore_mac(@_) . ':';
}

sub fetch {
    my ($t, $id, %how) = @_;
    my $time = exists $how{time} ? $how{time} : CORE::time;
    my $mac = mac(join("\n", 'fetch', $id, $time, ''), $how{key});
    return $t->request($how{method} || 'GET', $how{at} || "/test$WELL_KNOWN",
        { 'Session-Backup-Fetch' => qq(id="$id", time=$time, mac=:$mac:) . ($how{leave} ? ', leave' : '') });
}

sub put {
    my ($t, $id, $epoch, $seq, $state, %how) = @_;
    my $mac = restore_mac($id, $epoch, $seq, exists $how{signed} ? $how{signed} : $state, $how{key});
    return $t->request('PUT', $how{at} || "/test$WELL_KNOWN",
        { 'Session-Restore' => qq(id="$id", epoch=$epoch, seq=$seq, mac=:$mac:) . ($how{former} ? ', former' : '') }, $state);
}

# A Session-Backup as a hash; undef when there is none.
sub backup_of {
    my ($r) = @_;
    my $lines = $r->{headers}{'session-backup'} or return undef;
    is(scalar @$lines, 1, 'one Session-Backup') if @$lines != 1;
    my %field;
    my $text = $lines->[0];
    while ($text =~ /\G([a-z]+)(?:=(?:"([^"]*)"|:([^:]*):|(\d+)))?(?:, |$)/gc) {
        $field{$1} = defined $2 ? $2 : defined $3 ? decode_base64($3) : defined $4 ? $4 : 1;
    }
    die "not a dictionary: " . length($text) . " bytes\n" if (pos($text) || 0) < length $text;
    $ids{$_} = 1 for grep { defined } map { $field{$_} } qw(id was);
    return \%field;
}

# A request as httpd sends it; the answer with its backup and the client's cookie.
sub ask {
    my ($t, $path, $cookie, %more) = @_;
    my $method = delete $more{method} || 'GET';
    my $body = delete $more{body};
    my $r = $t->request($method, "/test$path",
        { 'Session-Backup-Accept' => $ACCEPT, $cookie ? (Cookie => "JSESSIONID=$cookie") : (), %more }, $body);
    return seen($r, $cookie);
}

sub seen {
    my ($r, $cookie) = @_;
    $r->{backup} = backup_of($r);
    ($r->{cookie}) = map { /^JSESSIONID=([^;]+)/ ? $1 : () } @{ $r->{headers}{'set-cookie'} || [] };
    $r->{jar} = $r->{cookie} || $cookie;
    $r->{missing} = ($r->{headers}{'session-missing'} || [])->[0];
    ($r->{count}) = $r->{body} =~ /\bcount=(\d+)/;
    return $r;
}

sub base_of { my ($cookie) = @_; (my $base = $cookie) =~ s/\.tomcat\w+$//; return $base }

# The state of a session, inline or fetched.
sub state_of {
    my ($t, $backup) = @_;
    return $backup->{state} if defined $backup->{state};
    my $r = fetch($t, $backup->{id}, at => $backup->{at});
    die "fetch: $r->{status}\n" unless $r->{status} == 200;
    return $r->{body};
}

my ($one, $two, $three) = Tomcat->start_all(
    { route => 'tomcat1', valve => 1, secret_file => $secret_file },
    { route => 'tomcat2', valve => 1, secret_file => $secret_file, valve_attributes => { classFilter => '!shop.Trap', maxSize => 1_000_000 } },
    # an authenticator that caches asks for the session in each request; without it, only the application does
    { route => 'tomcat3', valve => 'engine', secret_file => $secret_file,
        context_xml => '<Valve className="org.apache.catalina.authenticator.NonLoginAuthenticator" cache="false"/>' });

subtest 'the worked example of doc/protocol.md' => sub {
    my $key = '0123456789abcdef0123456789abcdef';
    is(restore_mac('ABC', 3, 19, 'cart=apple', $key), 'rrlz4hBd3hfhfYzYnlr8/6DMsv1kqKo5yXE+L7ZjOcA=');
    is(mac("fetch\nABC\n1700000000\n", $key), 'xMZZm1lZQmPqFYdXIiN3sjkAThXTNzYpDaEmW8DoDbQ=');
};

# ---- telling -------------------------------------------------------------------------

subtest 'nothing is said to who did not ask' => sub {
    my $r = $one->request('GET', '/test/count');
    is($r->{status}, 200);
    is_deeply([grep { /^session-/ } keys %{ $r->{headers} }], []);
    $r = $one->request('GET', '/test/count', { Cookie => 'JSESSIONID=0123456789ABCDEF.tomcat1' });
    is($r->{status}, 200, 'no 425 either');
    for my $accept ('v=2, inline=4096', 'inline=4096', 'v="1"', 'v=1, inline=', 'v=1,', "v=1; x=(1", '') {
        $r = $one->request('GET', '/test/count', { 'Session-Backup-Accept' => $accept });
        is($r->{status}, 200, "Accept: $accept");
        is($r->{headers}{'session-backup'}, undef, '... is not understood');
    }
};

subtest 'a request that runs while its session goes away and comes back' => sub {
    my $r = ask($one, '/count');
    my $id = base_of($r->{jar});
    ask($two, '/count', "$id.tomcat1", 'Session-Restore' => restore_field($id, 2, $r->{backup}{seq}, $r->{backup}{state}));
    my $there = ask($two, '/count', "$id.tomcat2");
    is($there->{count}, 3, 'counted elsewhere');
    my $slow = $one->send_request('GET', '/test/count?ms=2000', { 'Session-Backup-Accept' => $ACCEPT, Cookie => "JSESSIONID=$id.tomcat1" });
    sleep 0.5;
    is(put($one, $id, 3, $there->{backup}{seq}, $there->{backup}{state})->{status}, 204, 'it comes back under it');
    my $late = seen($one->read_response($slow, 'GET'));
    is_deeply([$late->{count}, $late->{backup}{epoch}], [2, 1], 'what it did is of the epoch it began in');
    my $next = ask($one, '/count', "$id.tomcat1");
    is_deeply([$next->{count}, $next->{backup}{epoch}], [4, 3], 'the session is another one');
};

subtest 'a small state comes inline, only when it changed' => sub {
    my $r = ask($one, '/count');
    my $backup = $r->{backup};
    is($backup->{id}, base_of($r->{cookie}), 'the id has no route');
    like($r->{cookie}, qr/\.tomcat1$/);
    is($backup->{epoch}, 1, 'epoch 1: made here');
    cmp_ok($backup->{seq}, '>', 0);
    is($backup->{ttl}, 1800);
    is($backup->{at}, "/test$WELL_KNOWN");
    like($backup->{state}, qr/^\xac\xed\x00\x05/, 'a Java stream');
    my $jar = $r->{jar};
    for my $quiet ('/ping', '/count?peek', '/state', '/url') {
        $r = ask($one, $quiet, $jar);
        is($r->{backup}, undef, "$quiet changes nothing");
        is($r->{cookie}, undef);
    }
    $r = ask($one, '/count', $jar);
    is($r->{count}, 2);
    cmp_ok($r->{backup}{seq}, '>', $backup->{seq}, 'the next version');
    my $seq = $r->{backup}{seq};
    ask($one, '/cart?add=apple&quiet', $jar);
    $r = ask($one, '/cart?add=pear&quiet', $jar, method => 'POST', body => '');
    like($r->{backup}{state}, qr/apple.*pear/s, 'changed in place, without setAttribute');
    $r = ask($one, '/max?seconds=600', $jar);
    is($r->{backup}{ttl}, 600, 'another time to live is a change');
    $r = ask($one, '/max?seconds=-1', $jar);
    is($r->{backup}{ttl}, 2592000, 'for ever is 30 days');
};

subtest 'an unchanged state is told again before its time to live is over' => sub {
    my $r = ask($one, '/max?seconds=20');
    my $seq = $r->{backup}{seq};
    sleep 5.2;          # a quarter
    $r = ask($one, '/count?peek', $r->{jar});
    ok($r->{backup}, 'told again');
    is($r->{backup}{seq}, $seq, 'under the same number') if $r->{backup};
    $r = ask($one, '/count', $r->{jar});
    cmp_ok($r->{backup}{seq}, '>', $seq, 'a changed one has a number of its own');

    # another request tells it in between: what this one did may have been in that answer
    my $slow = $one->send_request('GET', '/test/count?ms=1000', { 'Session-Backup-Accept' => $ACCEPT, Cookie => "JSESSIONID=$r->{jar}" });
    sleep 0.4;
    my $between = ask($one, '/cart', $r->{jar});
    $slow = seen($one->read_response($slow, 'GET'), $r->{jar});
    is($slow->{backup}{seq}, $between->{backup}{seq}, 'two requests that end with the same state tell the same number');
};

subtest 'a large state is announced and fetched' => sub {
    my $r = ask($one, '/big?bytes=20000');
    my $backup = $r->{backup};
    is($backup->{state}, undef);
    cmp_ok($backup->{size}, '>', 20000);
    my $jar = $r->{jar};
    $r = fetch($one, $backup->{id}, at => $backup->{at});
    is($r->{status}, 200);
    is(length $r->{body}, $backup->{size});
    is_deeply([@{ backup_of($r) }{qw(id epoch seq ttl size)}], [@{$backup}{qw(id epoch seq ttl size)}], 'the version that was announced');
    is($r->{headers}{'set-cookie'}, undef);
    $r = fetch($one, $backup->{id}, at => $backup->{at});
    is($r->{status}, 200, 'a second time');
    cmp_ok(backup_of($r)->{seq}, '>=', $backup->{seq});
    ask($one, '/big?bytes=30000', $jar);
    my $newer = ask($one, '/big?bytes=40000', $jar)->{backup};
    $r = fetch($one, $backup->{id});
    is(backup_of($r)->{seq}, $newer->{seq}, 'the newest one');
    is(length $r->{body}, $newer->{size});

    $r = ask($one, '/count', undef, 'Session-Backup-Accept' => 'v=1, inline=0');
    ok(!defined $r->{backup}{state} && $r->{backup}{size}, 'httpd wants nothing inline');
    $r = ask($one, '/big?bytes=3000', undef, 'Session-Backup-Accept' => 'v=1, inline=1000000');
    ok(defined $r->{backup}{state}, 'httpd takes more inline, and this fits');
    $r = ask($one, '/big?bytes=6000', undef, 'Session-Backup-Accept' => 'v=1, inline=1000000');
    ok($r->{backup}{size}, 'the Valve has its own limit: a connector sends no more than 8 KB of headers');
    $r = ask($one, '/big?bytes=900000');
    is(length state_of($one, $r->{backup}), $r->{backup}{size}, '900 KB');
};

subtest 'a fetch must be signed and fresh' => sub {
    my $r = ask($one, '/big?bytes=20000');
    my $id = $r->{backup}{id};
    is(fetch($one, $id, key => 'another secret of 32 bytes length')->{status}, 403, 'another secret');
    is(fetch($one, $id, time => CORE::time() - 120)->{status}, 403, 'too old');
    is(fetch($one, $id, time => CORE::time() + 120)->{status}, 403, 'too new');
    is(fetch($one, $id, time => CORE::time() - 20)->{status}, 200, 'a slow one');
    is(fetch($one, 'NOSUCH')->{status}, 404, 'signed, but not here');
    for my $field ('', 'x', qq(id="$id"), qq(id="$id", time=1), qq(id="$id", time=1, mac=::), qq(id="$id", time=-1, mac=:AAAA:),
        'id=' . $id . ', time=1, mac=:AAAA:', "\xff" x 100) {
        $r = $one->request('GET', "/test$WELL_KNOWN", { 'Session-Backup-Fetch' => $field });
        is($r->{status}, 403, 'not signed');
        is($r->{body}, '', 'and no hint');
    }
    is($one->request('GET', "/test$WELL_KNOWN", { Cookie => "JSESSIONID=$id.tomcat1", 'Session-Backup-Accept' => $ACCEPT })->{status}, 403);
    for my $method (qw(POST DELETE OPTIONS HEAD TRACE)) {
        $r = fetch($one, $id, method => $method);
        is($r->{status}, 405, $method);
        is($r->{headers}{'session-backup'}, undef);
    }
    is($one->request('GET', "/test$WELL_KNOWN;jsessionid=$id.tomcat1")->{status}, 403, 'with a path parameter');
};

# ---- taking over -----------------------------------------------------------------------

subtest 'inline: the next member goes on where the first one stopped' => sub {
    my $jar = ask($one, '/cart?add=apple')->{jar};
    ask($one, '/count', $jar);
    my $told = ask($one, '/count', $jar)->{backup};
    my ($id, $seq) = @{$told}{qw(id seq)};
    my $restore = restore_field($id, 2, $seq, $told->{state});

    my $r = ask($two, '/count', $jar, 'Session-Restore' => $restore);
    is($r->{status}, 200);
    is($r->{count}, 3, 'the counter goes on');
    is($r->{cookie}, "$id.tomcat2", 'Tomcat tells the client the new route');
    like($r->{body}, qr/member=tomcat2 id=\Q$id\E\.tomcat2/);
    is($r->{backup}{epoch}, 2, 'the epoch of the restore');
    cmp_ok($r->{backup}{seq}, '>', $seq);
    is($r->{backup}{was}, undef, 'another route is not another id');

    $r = ask($two, '/count', $jar, 'Session-Restore' => $restore) for 1 .. 3;
    is($r->{count}, 6, 'the same restore again does not turn it back');
    is($r->{cookie}, "$id.tomcat2", 'the old cookie is found and replaced again');
    $r = ask($two, '/count', $jar);
    is($r->{count}, 7, 'the old cookie alone, too');
    $r = ask($two, '/count', "$id.tomcat2");
    is($r->{count}, 8);
    is($r->{cookie}, undef, 'the new cookie needs no other');
    $r = ask($two, '/count', $id);
    is($r->{count}, 9, 'an id without a route');
    is($r->{cookie}, "$id.tomcat2");
    like(ask($two, '/cart', $jar)->{body}, qr/cart=apple /);

    my $first = ask($one, '/count')->{backup};
    $r = ask($three, '/ping', "$first->{id}.tomcat1", 'Session-Restore' => restore_field($first->{id}, 2, $first->{seq}, $first->{state}));
    is($r->{backup}{epoch}, 2, 'a restore is a change: told although the request did not look at it');
};

subtest 'PUT: 204, 412, 403' => sub {
    my $r = ask($one, '/big?bytes=60000');
    my ($jar, $told) = ($r->{jar}, $r->{backup});
    my ($sum) = $r->{body} =~ /sha256=(\w+)/;
    my ($id, $seq) = @{$told}{qw(id seq)};
    my $state = state_of($one, $told);
    $r = put($two, $id, 2, $seq, $state, at => $told->{at});
    is($r->{status}, 204);
    is($r->{headers}{'set-cookie'}, undef);
    is(put($two, $id, 2, $seq, $state)->{status}, 412, 'the same again');
    is(put($two, $id, 1, $seq + 100, $state)->{status}, 412, 'an older epoch');
    is(put($two, $id, 2, $seq - 1, $state)->{status}, 412, 'an older seq');
    $r = ask($two, '/big', $jar);
    like($r->{body}, qr/big=60000 sha256=$sum /, 'every byte');
    is($r->{cookie}, "$id.tomcat2");

    is(put($two, $id, 3, 1, $state, signed => "$state ")->{status}, 403, 'another state was signed');
    is(put($two, $id, 3, 1, $state, key => 'another secret of 32 bytes length')->{status}, 403, 'another secret');
    my $mac = restore_mac($id, 3, 1, $state);
    for my $field ('', qq(id="$id", epoch=3, seq=1), qq(id="$id", epoch=4, seq=1, mac=:$mac:), qq(id="$id", epoch=3, seq=2, mac=:$mac:),
        qq(id="${id}0", epoch=3, seq=1, mac=:$mac:), qq(id="$id", epoch=3.0, seq=1, mac=:$mac:), qq(id="$id", epoch=3, seq=1, mac=:),
        qq(id="$id", epoch=3, seq=1, mac=:!!!!:), qq(id="$id", none)) {
        is($one->request('PUT', "/test$WELL_KNOWN", { 'Session-Restore' => $field }, $state)->{status}, 403, $field eq '' ? 'no field' : 'not signed');
    }
    is(put($two, $id, 3, 1, 'not a Java stream')->{status}, 422, 'signed, but not a session');
    is(put($two, $id, 3, 1, '')->{status}, 422, 'signed, but empty');
    like(ask($two, '/big', $jar)->{body}, qr/big=60000/, 'what is held is left alone');
    is(put($two, $id, 3, 1, $state)->{status}, 204, 'a newer epoch with a lower seq is newer');
    is(put($two, $id, 4, 1, 'x' x 1_500_000)->{status}, 413, 'too large');
    is(put($two, 'TOOLARGE', 1, 1, 'x' x 1_500_000)->{status}, 413, 'too large');
    is(ask($two, '/count?peek', 'TOOLARGE.tomcat1')->{status}, 200, '... is not asked for again');
};

# Several httpds hand over what a former owner told last, and one of them may have found an older one; or one of them
# found, after the member had begun, what came too late and was acknowledged to nobody.
subtest 'two states of a former owner, one after the other' => sub {
    my $r = ask($one, '/count');
    my ($jar, $id) = ($r->{jar}, $r->{backup}{id});
    my @told = map { ask($one, '/count', $jar)->{backup} } 1 .. 6;
    my $give = sub { my ($epoch, $n, %how) = @_; put($two, $id, $epoch, $told[$n]{seq}, $told[$n]{state}, %how)->{status} };
    is($give->(2, 0, former => 1), 204);
    is($give->(2, 1, former => 1), 204, 'nothing has run: the newer one is taken');
    is(ask($two, '/count?peek', $jar)->{count}, 3, '... and is there');
    is($give->(2, 2, former => 1), 412, 'a request has run: what it saw stays');
    is(ask($two, '/count', $jar, 'Session-Restore' => restore_field($id, 2, $told[2]{seq}, $told[2]{state}) . ', former')->{count}, 4, '... also within a request');
    is($give->(2, 5), 204, 'not a former one: the newer is taken as ever');
    is(ask($two, '/count?peek', $jar)->{count}, 7);
    is($give->(3, 0, former => 1), 204, 'a later epoch is taken');
    my $slow = $two->send_request('GET', '/test/slow?ms=1500', { Cookie => "JSESSIONID=$jar", 'Session-Backup-Accept' => $ACCEPT });
    sleep 0.5;
    is($give->(3, 4, former => 1), 412, 'a request is running');
    my $late = seen($two->read_response($slow));
    is($late->{backup}{epoch}, 3, 'its answer is told');
    is(ask($two, '/count?peek', $jar)->{count}, 3, '... and kept');
    is($give->(4, 4, former => 1), 204);
    is(ask($two, '/count?peek', $jar)->{count}, 6);
};

subtest 'a session that is going to be moved leaves its member' => sub {
    my $r = ask($one, '/count');
    my ($jar, $told) = ($r->{jar}, $r->{backup});
    my $id = $told->{id};
    my $missing = sub { join ' ', $_[0]{status}, @{ $_[0]{headers}{'session-missing'} || [] } };
    my $leave = sub { my $r = fetch($one, $id, leave => 1, @_); ($r->{status}, (backup_of($r) || {})->{running}) };
    sleep 0.3;
    $r = fetch($one, $id, leave => 1);
    my $said = backup_of($r);
    is_deeply([$r->{status}, @{$said}{qw(id epoch seq running)}], [204, $id, 1, $told->{seq}, 0], 'nobody runs in it: how new it is');
    is($missing->(ask($one, '/count', $jar)), qq(425 id="$id", left), 'it has left');
    is($missing->(ask($one, '/count', $jar)), qq(425 id="$id", left), 'and stays away');
    is(ask($one, '/count', $jar, 'Session-Restore' => qq(id="$id", none))->{count}, 2, 'unless httpd says that there is no other');
    is(ask($one, '/count', $jar)->{count}, 3, 'then it is here');
    sleep 0.3;
    is_deeply([$leave->()], [204, 0]);
    is(put($one, $id, 1, $told->{seq}, $told->{state})->{status}, 412, 'or that this is its owner');
    is(ask($one, '/count', $jar)->{count}, 4, 'what it holds is as new or newer');
    is_deeply([$leave->(key => 'another secret of 32 bytes length')], [403, undef], 'not signed');
    is(ask($one, '/count', $jar)->{count}, 5);

    my $slow = $one->send_request('POST', '/test/slow?ms=1500', { Cookie => "JSESSIONID=$jar", 'Session-Backup-Accept' => $ACCEPT }, '');
    sleep 0.3;
    is_deeply([$leave->()], [204, 1], 'a request is running');
    is(ask($one, '/count?peek', $jar)->{status}, 200, 'who comes now waits, and goes on if httpd does not ask again');
    my @waiting = map { $one->send_request('GET', '/test/count', { Cookie => "JSESSIONID=$jar", 'Session-Backup-Accept' => $ACCEPT }) } 1 .. 2
        if ($leave->())[1];
    for (1 .. 100) { sleep 0.05; last unless ($leave->())[1] }
    $slow = seen($one->read_response($slow, 'POST'), $jar);
    is_deeply([$slow->{status}, $slow->{count}], [200, 6], 'who was running is answered');
    is($missing->(seen($one->read_response($_, 'GET'), $jar)), qq(425 id="$id", left), 'who came then has not been run') for @waiting;
    my $state = state_of($one, $slow->{backup});
    is(put($one, $id, 2, $slow->{backup}{seq}, $state)->{status}, 204, 'it comes back with another epoch');
    is(ask($one, '/count', $jar)->{count}, 7, 'it is here');
    is(fetch($one, 'NOSUCH', leave => 1)->{status}, 404, 'not held');
};

subtest 'kill -9, then PUT to another member' => sub {
    my ($victim) = Tomcat->start_all({ route => 'tomcat9', valve => 1, secret_file => $secret_file });
    my $r = ask($victim, '/cart?add=milk');
    my $jar = $r->{jar};
    ask($victim, '/count', $jar) for 1 .. 4;
    $r = ask($victim, '/cart?add=bread', $jar);
    my $state = state_of($victim, $r->{backup});
    $victim->kill9;
    ok(!eval { $victim->request('GET', '/test/ping'); 1 }, 'it is gone');
    is(put($two, $r->{backup}{id}, 2, $r->{backup}{seq}, $state)->{status}, 204);
    $r = ask($two, '/cart?add=butter', $jar);
    like($r->{body}, qr/cart=milk,bread,butter member=tomcat2/);
    is(ask($two, '/count', $jar)->{count}, 5);
    $victim->restart;
    $r = ask($victim, '/count', $jar);
    is($r->{status}, 425, 'the old member, back, says that it has nothing');
};

subtest 'a forged or garbled restore is ignored, the request goes on' => sub {
    my $told = ask($one, '/count')->{backup};
    my $id = $told->{id};
    my $state = b64($told->{state});
    my $good = restore_field($id, 2, 1, $told->{state});
    (my $changed = $good) =~ s/epoch=2/epoch=3/;
    for my $field ($changed, restore_field($id, 2, 1, $told->{state}, 'another secret of 32 bytes length'), 'garbage', '=', ',', '"',
        qq(id="$id", epoch=2, seq=1, state=:$state:), qq(id="$id", epoch=2, seq=1, state=:***:, mac=:***:),
        qq(id="$id", epoch=2, seq=1, state=:$state, mac=:AAAA:), qq(id="$id", epoch=99999999999999999, seq=1, state=:AAAA:, mac=:AAAA:),
        "id=\"$id\", epoch=2, seq=1, state=:AA\xe4AA:, mac=:AAAA:", '(' x 3000, 'a=(' x 1000, 'none', qq(id="$id")) {
        my $r = ask($two, '/count?peek', "$id.tomcat1", 'Session-Restore' => $field);
        is($r->{status}, 200, 'goes on');
        is($r->{count}, 0, '... without it');
        is($r->{backup}, undef);
    }
    my $r = ask($two, '/count?peek', "$id.tomcat1", 'Session-Restore' => restore_field($id, 2, 1, 'signed garbage'));
    is($r->{count}, 0, 'signed garbage');
    my @said = $two->log =~ /ignored a Session-Restore/g;
    is(scalar @said, 1, 'said once');
    like($two->log, qr/could not take over session sha256:[0-9a-f]{12} of /);
};

subtest 'the class filter' => sub {
    my $r = ask($one, '/set?what=trap');
    my ($jar, $told) = ($r->{jar}, $r->{backup});
    is(put($two, $told->{id}, 2, $told->{seq}, $told->{state})->{status}, 422, 'a class the filter turns away');
    like(ask($two, '/state')->{body}, qr/sprung=false/, '... was never made');
    is(ask($two, '/state', $jar)->{status}, 200, 'and it is not asked for again');
    is(put($three, $told->{id}, 2, $told->{seq}, $told->{state})->{status}, 204, 'no filter for it there');
    like(ask($three, '/state', $jar)->{body}, qr/odd=shop.Trap sprung=true/);
    my $start = "\xac\xed\0\5" . pack('C C/a*', 0x77, pack('n/a*', '/test'));      # as a state starts; then
    my $array = "ur\0\x13[Ljava.lang.Object;\x90\xceX\x9f\x10s)l\2\0\0xp";
    my %evil = (
        'a known gadget' => "sr\0\x17java.beans.EventHandler" . "\0" x 8 . "\2\0\0xp",
        'nested 5000 deep' => "$array\0\0\0\1" . ("uq\0~\0\0\0\0\0\1" x 5000) . 'p',
        'an array of two thousand million' => "$array\x7f\xff\xff\xf0");
    for my $name (sort keys %evil) {
        my $before = () = $three->log =~ /REJECTED|nested too deeply/g;
        is(put($three, 'EVIL', 1, 1, $start . $evil{$name})->{status}, 422, $name);
        my $after = () = $three->log =~ /REJECTED|nested too deeply/g;
        is($after, $before + 1, '... is turned away without a filter of ours');
    }
    is(ask($three, '/ping')->{status}, 200, 'it lives');
};

subtest 'an older copy makes way, quietly' => sub {
    my $r = ask($one, '/count');
    my ($jar, $old) = ($r->{jar}, $r->{backup});
    $r = ask($two, '/count', $jar, 'Session-Restore' => restore_field($old->{id}, 2, $old->{seq}, $old->{state}));
    $r = ask($two, '/count', $jar);
    is($r->{count}, 3);
    my $new = $r->{backup};
    $r = ask($one, '/count', $jar, 'Session-Restore' => restore_field($new->{id}, 3, $new->{seq}, $new->{state}));
    is($r->{count}, 4, 'not the copy that was left here');
    is_deeply([@{ $r->{backup} }{qw(epoch gone)}], [3, undef]);
    $r = ask($one, '/count', $jar);
    is($r->{count}, 5);
    like($one->log, qr/in place of an older copy/);

    # a request that runs on the old copy while it is replaced
    my $slow = $one->send_request('GET', '/test/slow?ms=1500', { Cookie => "JSESSIONID=$jar", 'Session-Backup-Accept' => $ACCEPT });
    for (1 .. 1000) {
        last if $one->request('GET', '/test/count?peek', { Cookie => "JSESSIONID=$jar" })->{body} =~ /count=6/;
        sleep 0.02;
    }
    is(put($one, $new->{id}, 4, 1, $new->{state})->{status}, 204);
    my $late = seen($one->read_response($slow));
    ok(!$late->{backup} || !$late->{backup}{gone}, 'does not say that the session is gone');
    is(ask($one, '/count', $jar)->{count}, 4, 'the new copy goes on');
};

# ---- 425 ---------------------------------------------------------------------------------

subtest 'routes and ids with dots' => sub {
    my ($dotted) = Tomcat->start_all({ route => 'node.2', valve => 1, secret_file => $secret_file });
    my $told = ask($one, '/count')->{backup};
    my $state = $told->{state};
    my $r = ask($dotted, '/count', "$told->{id}.node.1", 'Session-Restore' => restore_field($told->{id}, 2, 1, $state));
    is($r->{count}, 2, 'a route with a dot, of another member');
    is($r->{cookie}, "$told->{id}.node.2");
    is($r->{backup}{id}, $told->{id});
    is(ask($dotted, '/count', "$told->{id}.node.2")->{count}, 3);
    is(ask($dotted, '/count', $told->{id})->{count}, 4);
    $r = ask($dotted, '/count', 'A.B.C.node.1', 'Session-Restore' => restore_field('A.B.C', 2, 1, $state));
    is($r->{count}, 2, 'and dots in the id');
    is($r->{backup}{id}, 'A.B.C');
};

subtest 'several applications and one cookie' => sub {
    my ($t) = Tomcat->start_all({ route => 'tomcat7', valve => 1, secret_file => $secret_file, context => '', neighbours => ['/test'] });
    my $root = seen($t->request('GET', '/count', { 'Session-Backup-Accept' => $ACCEPT }));
    my $told = $root->{backup};
    my $r = ask($t, '/count', $root->{jar});
    is($r->{status}, 200, 'an application that is sent the id of its neighbour misses nothing');
    is($r->{count}, 1);
    isnt($r->{backup}{id}, $told->{id});
    $r = ask($one, '/count', $root->{jar}, 'Session-Restore' => restore_field($told->{id}, 2, $told->{seq}, $told->{state}));
    is($r->{count}, 1, "and does not take its neighbour's session");
    is(put($one, $told->{id}, 2, $told->{seq}, $told->{state})->{status}, 422, '... by PUT neither');
};

subtest 'not held: 425, and the request has not run' => sub {
    my $id = 'ABCDEF0123456789ABCDEF0123456789';
    my $r = ask($one, '/count', "$id.tomcat2");
    is($r->{status}, 425);
    is($r->{missing}, qq(id="$id"));
    is($r->{body}, '', 'no error page');
    is($r->{cookie}, undef);
    $r = ask($one, '/body', "$id.tomcat2", method => 'POST', body => 'x' x 100000);
    is($r->{status}, 425, 'with a body');
    $r = ask($one, "/count;jsessionid=$id.tomcat2");
    is($r->{missing}, qq(id="$id"), 'from a path parameter');
    $r = ask($one, '/count', "$id.tomcat2", 'Session-Restore' => qq(id="$id", none));
    is($r->{status}, 200, 'there is no backup: go on without');
    is($r->{count}, 1);
    isnt(base_of($r->{cookie}), $id, 'with a new session');
    is($r->{backup}{was}, undef);
    is(ask($one, '/count')->{status}, 200, 'no id at all');
    for my $odd ('a.b.tomcat2', 'ABC-n2.tomcat1', 'x', '.', 'a.') {
        $r = ask($one, '/count?peek', $odd);
        is($r->{status}, 425, $odd);
    }
    is(ask($one, '/count?peek', 'a.b.tomcat2')->{missing}, 'id="a.b"', 'a dotted id');
    is(ask($one, '/count?peek', 'ABC-n2.tomcat1')->{missing}, 'id="ABC-n2"', "memcached-session-manager's form");
    $r = ask($one, '/count?peek', '');
    is($r->{status}, 200);
};

subtest 'several cookies of the name: the one whose session is held' => sub {
    my $r = ask($one, '/count');
    my $id = $r->{backup}{id};
    for my $cookies ("JSESSIONID=STALE.tomcat2; JSESSIONID=$id.tomcat2", "JSESSIONID=$id.tomcat2; JSESSIONID=STALE.tomcat1",
        "JSESSIONID=STALE.tomcat2; JSESSIONID=$id.tomcat1; JSESSIONID=OTHER.tomcat2") {
        $r = seen($one->request('GET', '/test/count?peek', { 'Session-Backup-Accept' => $ACCEPT, Cookie => $cookies }));
        is($r->{count}, 1);
    }
    $r = seen($one->request('GET', '/test/count', { 'Session-Backup-Accept' => $ACCEPT, Cookie => 'JSESSIONID=FIRST.tomcat2; JSESSIONID=SECOND.tomcat2' }));
    is($r->{missing}, 'id="FIRST"', 'none is held: the first is named');
};

# ---- ids that change, sessions that end -----------------------------------------------------

subtest 'login' => sub {
    my $r = ask($one, '/count');
    my $old = $r->{backup}{id};
    $r = ask($one, '/login', $r->{jar});
    my $new = $r->{backup}{id};
    isnt($new, $old);
    is($r->{backup}{was}, $old, 'changeSessionId');
    is($r->{cookie}, "$new.tomcat1");
    $r = ask($one, '/count', $r->{jar});
    is($r->{count}, 2);
    is($r->{backup}{was}, undef, 'told once');

    $r = ask($one, '/login?user=alice', $r->{jar});
    is($r->{backup}{was}, $new, 'request.login');
    my $told = $r->{backup};
    like(ask($one, '/state', $r->{jar})->{body}, qr/user=alice auth=FORM role=true/);
    my ($created) = ask($one, '/state', $r->{jar})->{body} =~ /created=(\d+)/;
    my $jar = $r->{jar};
    is(put($two, $told->{id}, 2, $told->{seq}, $told->{state})->{status}, 204);
    like(ask($two, '/state', $jar)->{body}, qr/user=alice auth=FORM role=true created=$created max=1800/, 'user, auth type, role and times survive');

};

subtest 'ids that change where the response cannot say so' => sub {
    my $r = ask($one, '/count');
    my ($old, $jar) = ($r->{backup}{id}, $r->{jar});
    $r = seen($one->request('GET', '/test/login', { Cookie => "JSESSIONID=$jar" }), $jar);
    is($r->{backup}, undef, 'httpd did not ask');
    $r = ask($one, '/ping', $r->{jar});
    is($r->{backup}{was}, $old, 'the next response that may, does');

    $old = $r->{backup}{id};
    my $slow = $one->send_request('GET', '/test/slow?ms=1000', { Cookie => "JSESSIONID=$r->{jar}", 'Session-Backup-Accept' => $ACCEPT });
    for (1 .. 1000) {
        last if $one->request('GET', '/test/count?peek', { Cookie => "JSESSIONID=$r->{jar}" })->{body} =~ /count=2/;
        sleep 0.02;
    }
    $r = ask($one, '/login', $r->{jar});
    is($r->{backup}{was}, $old);
    my $late = seen($one->read_response($slow));
    is_deeply([@{ $late->{backup} }{qw(id was)}], [@{ $r->{backup} }{qw(id was)}], 'a request that began under the old id says the same');
};

subtest 'a form login that has begun at one member ends at the other' => sub {
    my $r = ask($one, '/private?what=secret');
    is($r->{body}, "form member=tomcat1\n");
    my ($jar, $told) = ($r->{jar}, $r->{backup});
    $r = ask($two, '/j_security_check', $jar, method => 'POST', body => 'j_username=alice&j_password=alice',
        'Content-Type' => 'application/x-www-form-urlencoded',
        'Session-Restore' => restore_field($told->{id}, 2, $told->{seq}, state_of($one, $told)));
    is($r->{status}, 303);
    like($r->{headers}{location}[0], qr{^/test/private}, 'back to where the user wanted to go');
    $told = $r->{backup};
    $r = ask($two, '/private?what=secret', $r->{jar});
    like($r->{body}, qr/private=alice what=secret member=tomcat2/);
};

subtest 'logout' => sub {
    my $r = ask($one, '/count');
    my ($id, $jar, $told) = ($r->{backup}{id}, $r->{jar}, $r->{backup});
    $r = ask($one, '/logout', $jar);
    is_deeply($r->{backup}, { id => $id, gone => 1 });
    $r = ask($one, '/count?peek', $jar);
    is($r->{status}, 200, 'its id is not missing');
    is($r->{count}, 0);
    is_deeply($r->{backup}, { id => $id, gone => 1 }, 'and is told again');
    is(put($one, $id, 1, $told->{seq}, $told->{state})->{status}, 412, 'what was ended is not brought back');

    $r = ask($one, '/count');
    $id = $r->{backup}{id};
    $r = ask($one, '/logout?again', $r->{jar});
    is($r->{backup}{was}, $id, 'logout and a new session in one response');
    isnt($r->{backup}{id}, $id);
    is($r->{backup}{gone}, undef);
    $r = ask($one, '/count', $r->{jar});
    is($r->{count}, 2);

    $r = ask($one, '/count');
    $id = $r->{backup}{id};
    is_deeply(ask($one, '/logout?renew', $r->{jar})->{backup}, { id => $id, gone => 1 }, 'ended under an id that was never told');

    $r = ask($one, '/logout?again');
    ok($r->{backup}{state}, 'a session made and nothing before it');
    is($r->{backup}{was}, undef);
};

subtest 'expired' => sub {
    my $r = ask($one, '/max?seconds=2');
    my ($told, $jar) = ($r->{backup}, $r->{jar});
    sleep 2.1;
    $r = ask($one, '/count', $jar);
    is($r->{status}, 425, 'it may have been a stale copy that expired');
    is(put($one, $told->{id}, 1, $told->{seq}, $told->{state})->{status}, 412, 'no, that is it');
    $r = ask($one, '/count?peek', $jar);
    is($r->{status}, 200, 'then it is over');
    is_deeply($r->{backup}, { id => $told->{id}, gone => 1 });

    $r = ask($one, '/max?seconds=2');
    ($told, $jar) = ($r->{backup}, $r->{jar});
    sleep 2.1;
    is(ask($one, '/count', $jar)->{status}, 425);
    is(put($one, $told->{id}, 2, $told->{seq}, $told->{state})->{status}, 204, 'it had moved on elsewhere');
    is(ask($one, '/count', $jar)->{count}, 1);

    $r = ask($one, '/max?seconds=2');
    ($told, $jar) = ($r->{backup}, $r->{jar});
    sleep 2.1;
    is(put($two, $told->{id}, 2, $told->{seq}, $told->{state})->{status}, 204, 'by the clock of another member');
    $r = ask($two, '/state', $jar);
    is($r->{status}, 200);
    like($r->{body}, qr/max=2 /, 'what httpd has counts');
};

# ---- sessions in URLs -------------------------------------------------------------------------

subtest ';jsessionid=' => sub {
    my $r = ask($one, '/count');
    my $told = $r->{backup};
    my $path = "/count;jsessionid=$told->{id}.tomcat1";
    is(ask($one, $path)->{count}, 2);
    $r = ask($two, $path, undef, 'Session-Restore' => restore_field($told->{id}, 2, $told->{seq}, $told->{state}));
    is($r->{count}, 2, 'restored');
    $r = ask($two, "/url;jsessionid=$told->{id}.tomcat1");
    like($r->{body}, qr{url=/test/count;jsessionid=\Q$told->{id}\E\.tomcat2 }, 'URLs get the new route');
    $r = ask($two, "/redirect;jsessionid=$told->{id}.tomcat1");
    like($r->{headers}{location}[0], qr/;jsessionid=\Q$told->{id}\E\.tomcat2/, 'redirects, too');
    is($r->{backup}{id}, $told->{id}, 'and a redirect carries the backup');
};

# ---- responses that are committed early ---------------------------------------------------------

sub committed_early {
    my ($where, $request) = @_;
    for my $path ('/flush?first', '/overflow?bytes=20000', '/overflow?bytes=20000&stream', '/overflow?bytes=8192&stream', '/throw', '/error', '/redirect') {
        my $jar = ask($where, '/cart?add=early')->{jar};
        my $r = $request->($path, $jar);
        ok($r->{backup}, "$path carries its backup") or next;
        my $other = $where == $two ? $one : $two;
        my $peek = ask($other, '/count?peek', $jar, 'Session-Restore' => restore_field($r->{backup}{id}, 7, $r->{backup}{seq}, state_of($where, $r->{backup})));
        is($peek->{count}, 1, '... of the moment of the commit');
        next if $path !~ /flush/;
        sleep 0.05;     # Tomcat's times are milliseconds: the next request must not look as if it touched the session
        $r = $request->('/ping', $jar);
        ok($r->{backup}, 'what changed after it comes with the next response, whatever that is') or next;
        $peek = ask($other, '/count?peek', $jar, 'Session-Restore' => restore_field($r->{backup}{id}, 8, $r->{backup}{seq}, $r->{backup}{state}));
        is($peek->{count}, 2);
        is($request->('/ping', $jar)->{backup}, undef, 'once');
    }
    my $r = $request->('/flush', ask($where, '/cart?add=early')->{jar});
    is($r->{backup}, undef, 'nothing had changed before the flush');
    my $jar = ask($where, '/count')->{jar};
    $r = $request->('/flush?logout', $jar);
    is($r->{backup}, undef, 'ended after the commit');
    $r = $request->('/ping', $jar);
    is($r->{backup}{gone}, 1, '... is told by the next response');
}

subtest 'committed early, http' => sub {
    committed_early($one, sub { ask($one, @_) });
};
subtest 'committed early, http, the Valve in the Engine' => sub {
    committed_early($three, sub { ask($three, @_) });
};
subtest 'committed early, ajp' => sub {
    committed_early($one, sub {
        my ($path, $cookie) = @_;
        seen(Ajp::request($one->ajp_port, 'GET', "/test$path", { 'session-backup-accept' => $ACCEPT, cookie => "JSESSIONID=$cookie" }), $cookie);
    });
};

subtest 'a request that ended without a response leaves nothing to the next one' => sub {
    for (1 .. 5) {
        my $socket = $one->send_request('GET', '/test/slow?ms=20', { 'Session-Backup-Accept' => $ACCEPT });
        close $socket;
        ok(!eval { $one->request('GET', '/test/die', { 'Session-Backup-Accept' => $ACCEPT }); 1 }, 'no answer');
    }
    for (1 .. 10) {
        my $r = $one->request('GET', '/test/count');
        is($r->{status}, 200);
        is($r->{headers}{'session-backup'}, undef);
    }
};

subtest 'async' => sub {
    my $r = ask($one, '/async?ms=20');
    is($r->{count}, 1);
    is($r->{backup} && $r->{backup}{id}, base_of($r->{jar}), 'answered by another thread');
    my $jar = $r->{jar};
    $r = ask($one, '/async?dispatch', $jar);
    is($r->{count}, 2);
    is($r->{backup} && $r->{backup}{id}, base_of($jar), 'dispatched');
    my $peek = ask($two, '/count?peek', $jar, 'Session-Restore' => restore_field($r->{backup}{id}, 2, $r->{backup}{seq}, $r->{backup}{state}));
    is($peek->{count}, 2);
};

# ---- many at once ---------------------------------------------------------------------------------

subtest 'parallel requests of one session' => sub {
    my $r = ask($one, '/count');
    my $told = $r->{backup};
    my $jar = $r->{jar};
    my $restore = restore_field($told->{id}, 2, $told->{seq}, $told->{state});
    my @sockets = map {
        $two->send_request('GET', '/test/count?ms=50', { 'Session-Backup-Accept' => $ACCEPT, Cookie => "JSESSIONID=$jar", 'Session-Restore' => $restore });
    } 1 .. 20;
    my @answers = map { seen($two->read_response($_)) } @sockets;
    is_deeply([sort { $a <=> $b } map { $_->{count} } @answers], [2 .. 21], '20 restores of the same, 20 distinct values');
    is(scalar(grep { $_->{backup} } @answers), 20, 'each response carries a backup');
    my ($newest) = sort { $b->{backup}{seq} <=> $a->{backup}{seq} } @answers;
    my $peek = ask($three, '/count?peek', $jar, 'Session-Restore' => restore_field($told->{id}, 3, $newest->{backup}{seq}, $newest->{backup}{state}));
    is($peek->{count}, 21, 'and the newest one has all of them');
    for my $answer (@answers) {
        my $id = $answer->{backup}{id};
        put($three, "COPY$answer->{count}", 1, 1, $answer->{backup}{state});
        my $copy = ask($three, '/count?peek', "COPY$answer->{count}.tomcat3");
        cmp_ok($copy->{count}, '>=', $answer->{count}, "the backup with count $answer->{count} has it");
    }
};

# ---- what cannot be serialised -----------------------------------------------------------------------

subtest 'an attribute that cannot be serialised stays in the session' => sub {
    my $jar = ask($one, '/count')->{jar};
    my $r = ask($one, '/set?what=plain', $jar);
    is(ask($one, '/count', $jar)->{count}, 2);
    like(ask($one, '/state', $jar)->{body}, qr/odd=java\.lang\.Object/, 'a backup does not take it away');
    my $told = ask($one, '/count', $jar)->{backup};
    $r = ask($two, '/count', $jar, 'Session-Restore' => restore_field($told->{id}, 2, $told->{seq}, $told->{state}));
    is($r->{count}, 4, 'the rest is restored');
    like(ask($two, '/state', $jar)->{body}, qr/odd=- /);
    my @said = $one->log =~ /odd \(java\.lang\.Object\) cannot be serialised/g;
    is(scalar @said, 1, 'said once');
};

# ---- other places and settings ---------------------------------------------------------------------------

subtest 'in a Host, in the root application, without a jvmRoute, with Tomcat keeping sessions over a restart' => sub {
    my $t = Tomcat->start(valve => 'host', context => '', persist => 1, secret_file => $secret_file);
    my $root = sub { my ($path, $cookie, %more) = @_;
        seen($t->request('GET', $path, { 'Session-Backup-Accept' => $ACCEPT, $cookie ? (Cookie => "JSESSIONID=$cookie") : (), %more }), $cookie) };
    my $r = $root->('/count');
    is($r->{backup}{id}, $r->{cookie}, 'the whole id');
    is($r->{backup}{at}, $WELL_KNOWN, 'the default place is said, too');
    my ($jar, $told) = ($r->{jar}, $r->{backup});
    $r = $root->('/count', 'A.B', 'Session-Restore' => restore_field('A.B', 2, 1, $told->{state}));
    is($r->{count}, 2, 'a dot means nothing without a jvmRoute');
    is($r->{cookie}, undef);
    is(fetch($t, 'A.B', at => $WELL_KNOWN)->{status}, 200);
    is(fetch($t, 'A.B', at => "/test$WELL_KNOWN", key => '')->{status}, 404, 'no application there');
    $r = $root->('/big?bytes=20000', $jar);
    is($r->{backup}{at}, $WELL_KNOWN);

    $t->terminate;
    $t->restart;
    $r = $root->('/count', $jar);
    is($r->{status}, 425, 'Tomcat kept it; nobody knows how new that copy is');
    $r = $root->('/count', $jar, 'Session-Restore' => qq(id="$jar", none));
    is($r->{count}, 2, 'no backup: then the copy that is there');
    $t->terminate;
    $t->restart;
    $r = $root->('/count?peek', $jar, 'Session-Restore' => restore_field($jar, 5, 1, $told->{state}));
    is($r->{count}, 1, 'a backup: then that');
};

subtest 'a web application that stops under its requests' => sub {
    my $app = "$secret_dir/app";
    system('cp', '-r', Tomcat::webapp(), $app) == 0 or die "cp: $?\n";
    system('chmod', '-R', 'a+rX,u+w', $app);
    my ($t) = Tomcat->start_all({ route => 'tomcat7', valve => 1, secret_file => $secret_file, docbase => $app, reloadable => 1,
        context_attributes => 'backgroundProcessorDelay="1" unloadDelay="4000"' });
    my $changed = time;
    my $reload = sub { utime $changed, $changed += 5, glob "$app/WEB-INF/classes/shop/*.class" };     # begins within a second
    my $slow = sub { $t->send_request($_[0], "/test/slow?ms=$_[1]", { 'Session-Backup-Accept' => $ACCEPT, $_[2] ? (Cookie => "JSESSIONID=$_[2]") : () }, $_[0] eq 'POST' ? 'x=1' : ()) };

    my $jar = ask($t, '/count')->{jar};
    my @running = map { $slow->('POST', 1700, $jar) } 1 .. 2;
    sleep 0.1;
    $reload->();
    my @r = map { seen($t->read_response($_, 'POST'), $jar) } @running;
    is(join(' ', map { $_->{status} } @r), '200 200', 'it waits for them');
    is_deeply([sort map { $_->{count} } @r], [2, 3]);
    is(scalar(grep { $_->{backup} } @r), 2, 'and each tells what it did') or diag explain [map { $_->{headers} } @r];

    for (1 .. 100) { last if ask($t, '/count')->{status} == 200; sleep 0.1 }
    my $seen = ask($t, '/count');
    my @how = (['GET', 425, $seen->{jar}], ['POST', 503, $seen->{jar}], ['GET', 503, undef]);
    @running = map { $slow->($_->[0], 12_000, $_->[2]) } @how;
    sleep 0.1;
    $reload->();
    @r = map { seen($t->read_response($running[$_], $how[$_][0]), $how[$_][2]) } 0 .. $#how;
    is(join(' ', map { $_->{status} } @r), '425 503 503', 'not for ever: what they did is lost, and they are told so');
    is(scalar(grep { $_->{backup} } @r), 0, 'nothing is told of it');
    is($r[0]{missing}, 'id="' . base_of($seen->{jar}) =~ s/\.tomcat7$//r . '"', 'the session is to be brought');
    is($r[1]{missing}, undef, 'but who may not be asked twice is not asked again');

    # one that is let in when the stop has begun: it waited, for the session was leaving
    for (1 .. 100) { last if ask($t, '/count')->{status} == 200; sleep 0.1 }
    $seen = ask($t, '/count');
    my $id = base_of($seen->{jar}) =~ s/\.tomcat7$//r;
    my $before = () = $t->log =~ /Reloading Context with name \[\/test\] has started/g;
    my $running = $slow->('POST', 12_000, $seen->{jar});
    sleep 0.3;
    fetch($t, $id, leave => 1);
    my $waiting = $t->send_request('POST', '/test/count', { 'Session-Backup-Accept' => $ACCEPT, Cookie => "JSESSIONID=$seen->{jar}" }, 'x=1');
    $reload->();
    for (1 .. 200) { fetch($t, $id, leave => 1); last if $before < (() = $t->log =~ /Reloading Context with name \[\/test\] has started/g); sleep 0.05 }
    my $late = seen($t->read_response($waiting, 'POST'), $seen->{jar});
    is("$late->{status} " . ($late->{missing} // ''), qq(425 id="$id"), 'who comes then is not run');
    seen($t->read_response($running, 'POST'), $seen->{jar});
    like($t->log, qr/Reloading Context with name \[\/test\] is completed.*Reloading Context with name \[\/test\] is completed/s, 'it was reloaded twice');
    $t->kill9;
};

subtest 'peers that are not trusted; missing="continue"; a second secret; a secret that changes' => sub {
    my $own = "$secret_dir/own";
    write_file($own, "$secret\n");
    write_file("$secret_dir/old", 'a secret of long ago, well known');
    my ($far, $near) = Tomcat->start_all(
        { route => 'tomcat4', valve => 1, secret_file => $secret_file, valve_attributes => { proxies => '192\.0\.2\.\d+' } },
        { route => 'tomcat5', valve => 'host', secret_file => $own, valve_attributes => { missing => 'continue', previousSecretFile => "$secret_dir/old" } });
    my $told = ask($one, '/count')->{backup};
    my $r = ask($far, '/count', "$told->{id}.tomcat1", 'Session-Restore' => restore_field($told->{id}, 2, 5, $told->{state}));
    is($r->{status}, 200, 'no 425');
    is($r->{count}, 1, 'no restore');
    is($r->{backup}, undef, 'no backup');
    is(put($far, $told->{id}, 2, 5, $told->{state})->{status}, 403);
    is(fetch($far, $told->{id})->{status}, 403);

    $r = ask($near, '/count', 'NOTHELD.tomcat1');
    is($r->{status}, 200, 'continue');
    is($r->{count}, 1);
    is(put($near, 'ID1', 1, 1, $told->{state}, key => 'a secret of long ago, well known')->{status}, 204, 'the previous secret');
    is(put($near, 'ID2', 1, 1, $told->{state})->{status}, 204, 'the secret');
    sleep 1.1;
    write_file($own, 'and now for something completely different');
    is(put($near, 'ID3', 1, 1, $told->{state})->{status}, 403, 'not any more');
    is(put($near, 'ID3', 1, 1, $told->{state}, key => 'and now for something completely different')->{status}, 204, 'the new one, without a restart');
    sleep 1.1;
    write_file($own, 'short');
    is(put($near, 'ID4', 1, 1, $told->{state}, key => 'and now for something completely different')->{status}, 204, 'a file that has become unusable changes nothing');
    like($near->log, qr/kept the old secret; the secret in \S+ has 5 bytes; at least 16/);
};

subtest 'a wrong setting stops the application and says why' => sub {
    write_file("$secret_dir/short", "too short\n");
    for my $case (
        [{ secret_file => "$secret_dir/none" }, qr/secret file \S+ cannot be read/],
        [{ secret_file => "$secret_dir/short" }, qr/has 9 bytes; at least 16 are needed/],
        [{ secret_file => undef }, qr/secretFile is missing/],
        [{ secret_file => $secret_file, valve_attributes => { missing => '404' } }, qr/allowed are 425 and continue/],
        [{ secret_file => $secret_file, valve_attributes => { proxies => '(' } }, qr/proxies is not a regular expression/],
        [{ secret_file => $secret_file, valve_attributes => { classFilter => 'a;maxdepth=x' } }, qr/classFilter is not a list of patterns/],
    ) {
        my ($option, $message) = @$case;
        my $t = Tomcat->new(route => 'tomcat6', valve => 1, %$option);
        ok(!eval { $t->launch->wait_ready; 1 }, 'it does not start');
        like($t->log, $message);
        $t->kill9;
    }
};

subtest 'no id and no state in any log' => sub {
    for my $t ($one, $two, $three) {
        my $log = $t->log;
        cmp_ok(length $log, '>', 100);
        my @found = grep { length > 8 && index($log, $_) >= 0 } keys %ids;
        is(scalar @found, 0, $t->route);
        unlike($log, qr/rO0AB/);
    }
    cmp_ok(scalar keys %ids, '>', 50);
};

done_testing;
