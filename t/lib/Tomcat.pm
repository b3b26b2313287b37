package Tomcat;

# Real Tomcats for tests and the demo: each with its own CATALINA_BASE, free loopback ports and process group.
#
#   my $t = Tomcat->start(route => 'tomcat1', valve => 1, secret_file => $file);
#   my ($a, $b, $c) = Tomcat->start_all({ route => 'a' }, { route => 'b' }, { route => 'c' });    # at once
#   my ($a, $b) = Tomcat->start_all(Tomcat->delta({ route => 'a' }, { route => 'b' }));    # DeltaManager
#   $t->http_port; $t->ajp_port; $t->route; $t->base; $t->log;
#   $t->kill9;          # SIGKILL; back when the whole process is gone and its ports are free
#   $t->kill9_at_once;  # SIGKILL, and do not wait (then $t->wait_gone)
#   $t->stop_signal; $t->cont;     # SIGSTOP, SIGCONT
#   $t->terminate;      # SIGTERM, orderly; sessions are kept for the next start if persist => 1
#   $t->restart;        # kill9 if it runs, then the same again on the same ports
#   my $r = $t->request('GET', '/test/count', { Cookie => 'JSESSIONID=...' }, $body);   # straight, no httpd
#
# Options of start: route (no jvmRoute if undef), host (of Hosts.pm), http_port, ajp_port, valve (0; 1 = in the Context; 'host'; 'engine'),
# secret_file, valve_attributes (hash), context ('/test'), manager_xml, context_attributes, context_xml (more elements in
# the Context), neighbours ([paths] of more contexts with the same application), http_attributes, ajp_attributes, cluster ('delta'), receiver_port, peers, send_options, persist, java_options (array),
# jars (array: more on the class path).
#
# Nothing outlives the test: the JVM is told by the kernel to die with us (setpriv --pdeathsig), and END kills by pid.
#
# Environment: TOMCAT_HOME (/usr/share/tomcat10), JAVA, VALVE_JAR, HA_WEBAPP; HA_BUILD and HA_TOP are where the last two
# are looked for; HA_KEEP=1 keeps the directories.

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(basename dirname);
use File::Path qw(make_path remove_tree);
use File::Temp ();
use IO::Socket::INET ();
use POSIX ();
use Time::HiRes qw(sleep time);

my $t_dir = abs_path(dirname(__FILE__) . '/..');
my $start_timeout = $ENV{HA_START_TIMEOUT} || 60;
my %running;            # pid => object, of this process only
my %given_ports;

sub home { $ENV{TOMCAT_HOME} || '/usr/share/tomcat10' }

# ---- what is built ------------------------------------------------------------

sub _built {
    my ($file) = @_;
    for my $top (grep { defined } $ENV{HA_BUILD}, $ENV{HA_TOP}, "$t_dir/..", "$t_dir/../..", '.') {
        return abs_path("$top/$file") if -e "$top/$file";
    }
    return undef;
}

sub valve_jar {
    my $jar = $ENV{VALVE_JAR} || _built('adapters/tomcat/session-ha-valve.jar');
    die "session-ha-valve.jar is not built (make, with a JDK and Tomcat; or set VALVE_JAR)\n" unless $jar && -f $jar;
    return $jar;
}

my $own_webapp;

# The exploded cart application; compiled here if the build has not made it.
sub webapp {
    return $ENV{HA_WEBAPP} if $ENV{HA_WEBAPP};
    my $made = _built('adapters/tomcat/webapp/made');
    return dirname($made) if $made;
    return $own_webapp->dirname if $own_webapp;
    $own_webapp = File::Temp->newdir('ha-webapp-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{HA_KEEP});
    my $dir = $own_webapp->dirname;
    chmod 0755, $dir;
    make_path("$dir/WEB-INF/classes");
    _write("$dir/WEB-INF/web.xml", _read("$t_dir/webapp/WEB-INF/web.xml"));
    my @command = ($ENV{JAVAC} || 'javac', '-d', "$dir/WEB-INF/classes", '-cp', join(':', map { home() . "/lib/$_.jar" } qw(servlet-api websocket-api websocket-client-api)),
        glob("$t_dir/webapp/src/shop/*.java"));
    system(@command) == 0 or die "cannot compile the web application: @command\n";
    return $dir;
}

# ---- ports ----------------------------------------------------------------------

# Below the range from which the kernel takes ports for outgoing connections, so that a free one stays free.
sub free_port {
    for (1 .. 1000) {
        my $port = 12000 + int(rand(20000));
        next if $given_ports{$port};
        my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'tcp', Listen => 1)
            or next;
        close $socket;
        $given_ports{$port} = 1;
        return $port;
    }
    die "no free port on 127.0.0.1\n";
}

# ---- start ----------------------------------------------------------------------

sub start {
    my ($class, %option) = @_;
    return ($class->start_all(\%option))[0];
}

sub start_all {
    my ($class, @options) = @_;
    my @all = map { $class->new(%$_) } @options;
    $_->launch for @all;
    $_->wait_ready for @all;
    return @all;
}

# The same options, and what DeltaManager needs to know of the others.
sub delta {
    my ($class, @options) = @_;
    my @members = map { { %$_, cluster => 'delta', receiver_port => free_port() } } @options;
    my @ports = map { $_->{receiver_port} } @members;
    $_->{peers} = \@ports for @members;
    return @members;
}

sub new {
    my ($class, %option) = @_;
    my $self = bless { context => '/test', host => { at => '127.0.0.1', in => [] }, %option }, $class;
    $self->{http_port} ||= free_port();
    $self->{ajp_port}  ||= free_port();
    $self->{dir} = File::Temp->newdir('ha-tomcat-XXXXXX', TMPDIR => 1, CLEANUP => !$ENV{HA_KEEP});
    $self->{base} = $self->{dir}->dirname;
    make_path(map { "$self->{base}/$_" } qw(conf logs temp work webapps));
    _write("$self->{base}/conf/server.xml", $self->_server_xml);
    _write("$self->{base}/conf/catalina.properties", "common.loader=\nserver.loader=\nshared.loader=\n"
        . "tomcat.util.scan.StandardJarScanFilter.jarsToSkip=*.jar\n");
    _write("$self->{base}/conf/web.xml", <<'XML');
<?xml version="1.0" encoding="UTF-8"?>
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0" metadata-complete="true"/>
XML
    _write("$self->{base}/conf/tomcat-users.xml", <<'XML');
<?xml version="1.0" encoding="UTF-8"?>
<tomcat-users><user username="alice" password="alice" roles="customer"/></tomcat-users>
XML
    _write("$self->{base}/conf/logging.properties", <<'TEXT');
handlers = java.util.logging.ConsoleHandler
.level = INFO
java.util.logging.ConsoleHandler.level = FINE
java.util.logging.ConsoleHandler.formatter = org.apache.juli.OneLineFormatter
TEXT
    return $self;
}

sub launch {
    my ($self) = @_;
    die "already running\n" if $self->{pid};
    my $lib = home() . '/lib';
    my $bin = home() . '/bin';
    my @jars = (glob("$lib/*.jar"), "$bin/bootstrap.jar", "$bin/tomcat-juli.jar");
    push @jars, valve_jar() if $self->{valve};
    push @jars, @{ $self->{jars} || [] };
    my $base = $self->{base};
    my @command = ('setpriv', '--pdeathsig', 'KILL', @{ $self->{host}{in} }, $ENV{JAVA} || 'java',
        qw(-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xss256k -Xmx96m -XX:-UsePerfData -Xshare:auto),
        (map { "--add-opens=$_=ALL-UNNAMED" } qw(java.base/java.lang java.base/java.io java.base/java.util
            java.base/java.util.concurrent java.rmi/sun.rmi.transport)),
        '-Djava.util.logging.manager=org.apache.juli.ClassLoaderLogManager',
        "-Djava.util.logging.config.file=$base/conf/logging.properties",
        '-Dcatalina.home=' . home(), "-Dcatalina.base=$base", "-Djava.io.tmpdir=$base/temp",
        '-Djava.awt.headless=true', '-Djava.security.egd=file:/dev/./urandom',
        '-Dmember=' . (defined $self->{route} ? $self->{route} : '-'),
        @{ $self->{java_options} || [] },
        '-cp', join(':', @jars), 'org.apache.catalina.startup.Bootstrap', 'start');
    my $parent = $$;
    my $pid = fork;
    die "fork: $!\n" unless defined $pid;
    if (!$pid) {
        POSIX::setpgid(0, 0);
        POSIX::_exit(127) if getppid() != $parent;
        open STDIN,  '<',  '/dev/null';
        open STDOUT, '>>', "$base/logs/catalina.out" or POSIX::_exit(127);
        open STDERR, '>&', \*STDOUT;
        # an inherited descriptor (a listening socket, a pipe to prove) must not be held by the JVM
        POSIX::close($_) for 3 .. 255;
        $SIG{$_} = 'DEFAULT' for qw(INT TERM HUP PIPE);
        { no warnings; exec @command; }
        POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    $running{$pid} = $self;
    return $self;
}

# Until the web application has answered with 200.
sub wait_ready {
    my ($self) = @_;
    my $until = time + $start_timeout;
    while (time < $until) {
        my $r = eval { $self->request('GET', "$self->{context}/ping", {}, undef, 5) };
        return $self if $r && $r->{status} == 200;
        if (waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid}) {
            delete $running{ delete $self->{pid} };
            die "Tomcat ended at start:\n" . $self->log;
        }
        sleep 0.05;
    }
    $self->kill9;
    die "Tomcat did not answer within $start_timeout s:\n" . $self->log;
}

# ---- end ------------------------------------------------------------------------

sub kill9 {
    my ($self) = @_;
    $self->kill9_at_once;
    return $self->wait_gone;
}

sub kill9_at_once {
    my ($self) = @_;
    kill 'KILL', $self->{pid} if $self->{pid};
    return $self;
}

sub terminate {
    my ($self) = @_;
    return $self unless $self->{pid};
    kill 'CONT', $self->{pid};
    kill 'TERM', $self->{pid};
    my $until = time + $start_timeout;
    while (time < $until) {
        if (waitpid($self->{pid}, POSIX::WNOHANG()) == $self->{pid}) {
            delete $running{ delete $self->{pid} };
            return $self;
        }
        sleep 0.02;
    }
    return $self->kill9;
}

# A zombie is reaped only when the last thread is gone, and then the kernel has closed the sockets.
sub wait_gone {
    my ($self) = @_;
    if ($self->{pid}) {
        waitpid $self->{pid}, 0;
        delete $running{ delete $self->{pid} };
    }
    return $self;
}

sub stop_signal {
    my ($self) = @_;
    kill 'STOP', $self->{pid};
    # until the kernel says that it stands
    for (1 .. 1000) {
        last if _read("/proc/$self->{pid}/stat") =~ /\)\s+T/;
        sleep 0.005;
    }
    return $self;
}

sub cont { my ($self) = @_; kill 'CONT', $self->{pid}; return $self }

sub restart {
    my ($self) = @_;
    $self->kill9 if $self->{pid};
    return $self->launch->wait_ready;
}

# a test that dies on a signal still runs END
$SIG{$_} ||= sub { exit 130 } for qw(INT TERM HUP);
my $owner = $$;
END {
    if ($$ == $owner) {
        my $status = $?;
        $_->kill9 for values %running;
        $? = $status;
    }
}

sub DESTROY {
    my ($self) = @_;
    local ($?, $!, $@);
    $self->kill9 if $self->{pid} && $running{ $self->{pid} } && $$ == $owner;
}

# ---- what is known of it ----------------------------------------------------------

sub at        { $_[0]{host}{at} }
sub http_port { $_[0]{http_port} }
sub ajp_port  { $_[0]{ajp_port} }
sub route     { $_[0]{route} }
sub base      { $_[0]{base} }
sub pid       { $_[0]{pid} }
sub log       { my ($self) = @_; return -f "$self->{base}/logs/catalina.out" ? _read("$self->{base}/logs/catalina.out") : '' }

# One request on a connection of its own: { status, reason, headers => { lower-case name => [values] }, body }.
# Dies when there is no answer. A header whose value is an array is sent as several lines.
sub request {
    my ($self, $method, $path, $headers, $body, $timeout) = @_;
    my $socket = $self->send_request($method, $path, $headers, $body, $timeout);
    return $self->read_response($socket, $method, $timeout);
}

sub send_request {
    my ($self, $method, $path, $headers, $body, $timeout) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => $self->{host}{at}, PeerPort => $self->{http_port}, Proto => 'tcp',
        Timeout => $timeout || 30) or die "connect: $@\n";
    my %header = (Host => "$self->{host}{at}:$self->{http_port}", Connection => 'close', %{ $headers || {} });
    $header{'Content-Length'} = length $body if defined $body && !exists $header{'Content-Length'};
    my $text = "$method $path HTTP/1.1\r\n";
    for my $name (sort keys %header) {
        $text .= "$name: $_\r\n" for ref $header{$name} ? @{ $header{$name} } : $header{$name};
    }
    local $SIG{PIPE} = 'IGNORE';
    $socket->autoflush(1);
    print $socket $text, "\r\n", defined $body ? $body : '' or die "send: $!\n";
    return $socket;
}

sub read_response {
    my ($self, $socket, $method, $timeout) = @_;
    my $text = '';
    local $SIG{ALRM} = sub { die "no answer in time\n" };
    my $before = alarm($timeout || 30);
    my $ok = eval {
        while (1) {
            my $n = sysread $socket, $text, 65536, length $text;
            die "read: $!\n" unless defined $n;
            last unless $n;
        }
        1;
    };
    my $why = $@;
    alarm $before;
    die $why unless $ok;
    $text =~ s/\AHTTP\/1\.1 100[^\n]*\n(?:[^\r\n][^\n]*\n)*\r?\n//;
    $text =~ s/\AHTTP\/1\.[01] (\d{3}) ?([^\r\n]*)\r\n// or die "not an answer: " . length($text) . " bytes\n";
    my %r = (status => $1, reason => $2, headers => {});
    my ($head, $body) = split /\r\n\r\n/, "\r\n$text", 2;
    die "cut in the headers\n" unless defined $body;
    for my $line (split /\r\n/, $head) {
        push @{ $r{headers}{ lc $1 } }, $2 if $line =~ /^([^:]+):\s*(.*?)\s*$/;
    }
    if (lc(($r{headers}{'transfer-encoding'} || [''])->[0]) eq 'chunked') {
        my $plain = '';
        while ($body =~ s/\A([0-9a-fA-F]+)[^\r\n]*\r\n//) {
            my $n = hex $1;
            last if !$n;
            die "cut in a chunk\n" if length $body < $n + 2;
            $plain .= substr $body, 0, $n;
            substr($body, 0, $n + 2) = '';
        }
        $body = $plain;
    } elsif (my $length = $r{headers}{'content-length'}) {
        die "cut in the body\n" if length $body < $length->[0] && ($method || '') ne 'HEAD';
    }
    $r{body} = $body;
    return \%r;
}

# ---- its configuration --------------------------------------------------------------

sub _server_xml {
    my ($self) = @_;
    my $valve = $self->{valve} || '';
    my $valve_xml = '';
    if ($valve) {
        my %attribute = (secretFile => $self->{secret_file}, %{ $self->{valve_attributes} || {} });
        $valve_xml = '<Valve className="org.sessionha.SessionBackupValve"'
            . join('', map { qq( $_=") . _escape($attribute{$_}) . '"' } sort grep { defined $attribute{$_} } keys %attribute)
            . '/>';
    }
    my %at = map { $_ => $valve eq $_ ? $valve_xml : '' } qw(engine host);
    $at{context} = $valve && $valve !~ /^(?:engine|host)$/ ? $valve_xml : '';
    my $route = defined $self->{route} ? ' jvmRoute="' . _escape($self->{route}) . '"' : '';
    my $docbase = _escape($self->{docbase} || ($self->{cluster} ? $self->_clustered : webapp()));
    my $context = _escape($self->{context});
    my $manager = defined $self->{manager_xml} ? $self->{manager_xml}
        : $self->{cluster} ? '' : $self->{persist} ? '<Manager pathname="SESSIONS.ser"/>' : '<Manager pathname=""/>';
    my $cluster = $self->_cluster_xml;
    my $users = _escape("$self->{base}/conf/tomcat-users.xml");
    my ($http, $ajp, $more, $inside) = map { defined $self->{$_} ? $self->{$_} : '' }
        qw(http_attributes ajp_attributes context_attributes context_xml);
    my $reloadable = $self->{reloadable} ? 'true' : 'false';
    my $contexts = join "\n", map { <<"XML" } $context, map { _escape($_) } @{ $self->{neighbours} || [] };
        <Context path="$_" docBase="$docbase" reloadable="$reloadable" $more>
          <JarScanner scanClassPath="false" scanManifest="false"/>
          $at{context}
          $manager
          $inside
        </Context>
XML
    return <<"XML";
<?xml version="1.0" encoding="UTF-8"?>
<Server port="-1">
  <Service name="Catalina">
    <Connector port="$self->{http_port}" address="$self->{host}{at}" protocol="HTTP/1.1" connectionTimeout="20000"
               maxThreads="64" minSpareThreads="2" $http/>
    <Connector port="$self->{ajp_port}" address="$self->{host}{at}" protocol="AJP/1.3" secretRequired="false"
               maxThreads="64" minSpareThreads="2" $ajp/>
    <Engine name="Catalina" defaultHost="localhost"$route backgroundProcessorDelay="10">
      $cluster
      <Realm className="org.apache.catalina.realm.MemoryRealm" pathname="$users"/>
      $at{engine}
      <Host name="localhost" appBase="webapps" autoDeploy="false" deployOnStartup="false">
        $at{host}
        $contexts
      </Host>
    </Engine>
  </Service>
</Server>
XML
}

# The application with <distributable/> in its web.xml: the attribute of <Context> is overruled by its absence.
sub _clustered {
    my ($self) = @_;
    my ($from, $to) = (webapp(), "$self->{base}/webapps/clustered");
    make_path("$to/WEB-INF/classes/shop");
    my $xml = _read("$from/WEB-INF/web.xml");
    $xml =~ s{(?=<session-config>)}{<distributable/>\n  } or die "$from/WEB-INF/web.xml: no <session-config>\n";
    _write("$to/WEB-INF/web.xml", $xml);
    _write("$to/WEB-INF/classes/shop/" . basename($_), _read($_)) for glob "$from/WEB-INF/classes/shop/*.class";
    return $to;
}

# All members, this one among them: each finds itself by host and port.
sub _cluster_xml {
    my ($self) = @_;
    return '' unless $self->{cluster};
    die "cluster => '$self->{cluster}': only delta is known\n" unless $self->{cluster} eq 'delta';
    my $members = '';
    my $options = $self->{send_options} // 8;       # 8: copied after the answer; 6: before it, acknowledged
    for my $port (@{ $self->{peers} }) {
        my $id = join ',', (0) x 14, $port >> 8, $port & 255;
        $id =~ s/(\d+)/$1 > 127 ? $1 - 256 : $1/ge;
        $members .= '<Member className="org.apache.catalina.tribes.membership.StaticMember" host="127.0.0.1"'
            . qq( port="$port" uniqueId="{$id}"/>\n);
    }
    return <<"XML";
<Cluster className="org.apache.catalina.ha.tcp.SimpleTcpCluster" channelSendOptions="$options">
        <Manager className="org.apache.catalina.ha.session.DeltaManager" expireSessionsOnShutdown="false"
                 stateTransferTimeout="3" notifyListenersOnReplication="true"/>
        <Channel className="org.apache.catalina.tribes.group.GroupChannel">
          <Membership className="org.apache.catalina.tribes.membership.StaticMembershipService"
                      connectTimeout="500" expirationTime="5000" rpcTimeout="3000">
            $members
          </Membership>
          <Receiver className="org.apache.catalina.tribes.transport.nio.NioReceiver" address="127.0.0.1"
                    port="$self->{receiver_port}" autoBind="0" selectorTimeout="5000" maxThreads="6"/>
          <Sender className="org.apache.catalina.tribes.transport.ReplicationTransmitter">
            <Transport className="org.apache.catalina.tribes.transport.nio.PooledParallelSender"/>
          </Sender>
          <Interceptor className="org.apache.catalina.tribes.group.interceptors.TcpFailureDetector"/>
          <Interceptor className="org.apache.catalina.tribes.group.interceptors.MessageDispatchInterceptor"/>
        </Channel>
        <Valve className="org.apache.catalina.ha.tcp.ReplicationValve" filter=""/>
        <Valve className="org.apache.catalina.ha.session.JvmRouteBinderValve"/>
        <ClusterListener className="org.apache.catalina.ha.session.ClusterSessionListener"/>
      </Cluster>
XML
}

sub _escape {
    my ($text) = @_;
    my %entity = ('&' => '&amp;', '<' => '&lt;', '>' => '&gt;', '"' => '&quot;');
    $text =~ s/([&<>"])/$entity{$1}/g;
    return $text;
}

sub _read {
    my ($file) = @_;
    open my $in, '<', $file or return '';
    local $/;
    my $text = <$in>;
    return defined $text ? $text : '';
}

sub _write {
    my ($file, $text) = @_;
    open my $out, '>', $file or die "$file: $!\n";
    print $out $text;
    close $out or die "$file: $!\n";
}

1;
