# SessionHANative tomcat-file and tomcat-jdbc: real Tomcats that keep their sessions in files, and in MariaDB
# (PersistentManager with PersistentValve: after each request). The module asks whether a session is there, tells, and writes nothing
# of theirs.
use strict;
use warnings;
use Apache::Test qw(-withtestmore);
use Site;

my %store = (
    file => { start => \&start_file, count => \&files, remove => \&remove_file },
    jdbc => { start => \&start_database, count => \&rows, remove => \&remove_row },
);
plan tests => 2 * 20 + 2;

# missing: 503, and in one place a page
my $native = "SessionHABackup native\nSessionHAOnMissing 503\n<Location \"/page\">\nSessionHAOnMissing /lost.html\n</Location>\n";

sub persistent {
    my ($store) = @_;
    return valve => 0, members => 3, timeout => '5000ms', tomcat => {
        manager_xml => qq(<Manager className="org.apache.catalina.session.PersistentManager" saveOnRestart="false">$store</Manager>),
        context_xml => '<Valve className="org.apache.catalina.valves.PersistentValve"/>' };
}

my ($dir, $db);
sub start_file {
    $dir = Apache::Test::vars()->{t_logs} . "/sessions.$$";
    return Site->new(nodes => 0, store => "file:$dir", conf => $native . "SessionHANative tomcat-file",
        persistent(qq(<Store className="org.apache.catalina.session.FileStore" directory="$dir"/>)));
}
sub files { return scalar(() = glob "$dir/*.session") }
sub remove_file { unlink "$dir/$_[0].session" or die "$_[0]: $!" }

# names and table as in Tomcat's documentation
sub start_database {
    my $port = Site::free_port();
    $db = Daemon->mariadb($port);
    $db->sql('CREATE TABLE tomcat_sessions (session_id VARCHAR(100) NOT NULL PRIMARY KEY, valid_session CHAR(1) NOT NULL, max_inactive INT NOT NULL, '
        . 'last_access BIGINT NOT NULL, app_name VARCHAR(255), session_data MEDIUMBLOB, KEY kapp_name(app_name))');
    my %persistent = persistent('<Store className="org.apache.catalina.session.DataSourceStore" dataSourceName="jdbc/sessions" localDataSource="true" '
        . 'sessionTable="tomcat_sessions" sessionIdCol="session_id" sessionValidCol="valid_session" sessionMaxInactiveCol="max_inactive" '
        . 'sessionLastAccessedCol="last_access" sessionAppCol="app_name" sessionDataCol="session_data"/>');
    $persistent{tomcat}{jars} = ['/usr/share/java/mariadb-java-client.jar'];
    $persistent{tomcat}{context_xml} .= '<Resource name="jdbc/sessions" auth="Container" type="javax.sql.DataSource" driverClassName="org.mariadb.jdbc.Driver" '
        . qq(factory="org.apache.tomcat.jdbc.pool.DataSourceFactory" url="jdbc:mariadb://127.0.0.1:$port/test?connectTimeout=10000&amp;socketTimeout=10000" )
        . 'username="root" password="secret" maxActive="16" initialSize="0" minIdle="0" testOnBorrow="true" validationQuery="SELECT 1"/>';
    return Site->new(nodes => 0, store => "dbd:mysql,host=127.0.0.1,port=$port,user=root,pass=secret,dbname=test",
        conf => $native . "SessionHANative tomcat-jdbc", %persistent);
}
sub rows { return ($db->sql('SELECT COUNT(*) FROM tomcat_sessions'))[0] }
sub remove_row { $db->sql("DELETE FROM tomcat_sessions WHERE session_id = '$_[0]'") }

sub n_of { (Site::member_of($_[0]) // '') =~ /(\d+)/; $1 }
sub told { my ($site) = @_; my $e = $site->status->{journal}[0]; return $e ? join ' ', map { $e->{$_} } qw(from to outcome) : '' }
sub hits { return $_[0]->status->{stores}[0]{hits} }
sub session {
    my ($site, $n) = @_;
    for (1 .. 9) {
        my $r = $site->get('/count');
        return Site::cookie_of($r) if n_of($r) == $n;
    }
    die "no session at tomcat$n";
}
sub made_up { return sprintf 'JSESSIONID=%s.tomcat1', join '', map { sprintf '%02X', int rand 256 } 1 .. 16 }

for my $name (sort keys %store) {
    my $kind = $store{$name};
    my $site = $kind->{start}->();
    my ($a, $b, $c) = map { session($site, 1) } 1 .. 3;
    $site->get('/count', cookie => $a) for 1, 2;
    is hits($site), 0, "$name: nothing of it is asked for while the member is well";
    my $before = $kind->{count}->();
    $site->tomcat(1)->kill9;

    my $r = $site->get('/count', cookie => $a);
    is Site::count_of($r), 4, 'the new member has found the session';
    my $heir = Site::member_of($r);
    isnt $heir, 'tomcat1', 'it is another one';
    is told($site), "tomcat1 $heir native", 'which is what the module tells';
    is $kind->{count}->(), $before, 'the application has as many sessions as before';
    is hits($site), 1, 'it was asked for once';
    is Site::count_of($site->get('/count', cookie => $a)), 5, 'on it goes';
    is hits($site), 1, 'and it is not asked for again';

    $r = $site->get('/count', cookie => made_up());
    is $r->{status}, 503, 'an id that nobody has: 503';
    like told($site), qr/^tomcat1 tomcat[23] missing$/, 'missing';
    my $cookie = made_up();
    is join(' ', map { $site->get('/count', cookie => $cookie)->{status} } 1, 2), '503 503', 'and again';
    $r = $site->get('/page', cookie => made_up());
    is "$r->{status} $r->{head}{location}[0]", '302 /lost.html', 'or a page';
    $kind->{remove}->($b =~ s/^JSESSIONID=//r);
    is $site->get('/count', cookie => $b)->{status}, 503, 'a session that was removed';
    like told($site), qr/ missing$/, 'is missing';

    # a name is made of no id that could be more than a name; nobody knows then, and it goes on
    $r = $site->get('/count', cookie => 'JSESSIONID=x/../../x.tomcat1');
    is $r->{status}, 200, 'an id that is no name';
    like told($site), qr/ unavailable$/, 'is not asked for';
    like $site->error_log, qr/: unavailable, .*the id has other characters/, 'as the log says';

    if ($name eq 'jdbc') {
        # last_access is that of the request before the last one: time is over for sure when it has passed twice (30 min)
        my $age = 'UPDATE tomcat_sessions SET last_access = last_access - %d WHERE session_id = \'%s\'';
        $db->sql(sprintf $age, 3_500_000, $c =~ s/^JSESSIONID=//r);
        $r = $site->get('/count', cookie => $c);
        is $r->{status}, 200, 'a row that may be a living session';
        my $d = session($site, n_of($r));
        $db->sql(sprintf $age, 3_700_000, $d =~ s/^JSESSIONID=//r);
        $site->tomcat(n_of($r))->kill9;
        is $site->get('/count', cookie => $d)->{status}, 503, 'one that cannot be';
        $db->kill9;
    }
    else {
        chmod 0, $dir;
    }
    $r = $site->get('/count', cookie => made_up());
    is $r->{status}, 200, 'their place cannot be reached: the request goes on';
    like told($site), qr/^tomcat1 \w+ unavailable$/, 'unavailable';
    chmod 0700, $dir if $name eq 'file';
    unlike $site->error_log, qr/\b[0-9A-F]{32}\b/, 'no id in the log';
    $site->httpd->end;
}
