# Completion of oomwatchd for fish; made by script/make-docs.

# The words on the line that are neither options nor their values: the command, and its arguments.
function __oomwatchd_places
    set -l valued --cgroup --config --html --interval --pid --rule --since --unit --wait -c
    set -l words (commandline -opc)
    set -l skip
    for word in $words[2..]
        if set -q skip[1]
            set -e skip
            set -l skip
        else if contains -- $word $valued
            set skip yes
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end

# Whether that many words have been given: of no command, with 0 alone, else of this one.
function __oomwatchd_at -a number command
    set -l places (__oomwatchd_places)
    if test $number = 0
        test (count $places) = 0
    else
        test "$places[1]" = "$command" -a (count $places) = $number
    end
end

function __oomwatchd_in -a command
    set -l places (__oomwatchd_places)
    test "$places[1]" = "$command"
end

function __oomwatchd_nothing
end

function __oomwatchd_files
    __fish_complete_path (commandline -ct)
end

function __oomwatchd_yaml_files
    __fish_complete_path (commandline -ct) | string match -re '(/|\.ya?ml)(\t|$)'
end

function __oomwatchd_cgroups
    set -l token (commandline -ct)
    if string match -q '/sys/fs/cgroup*' -- $token
        __fish_complete_directories $token
    else
        set -l root /sys/fs/cgroup
        string replace -- $root '' $root$token*/
    end
end

function __oomwatchd_pids
    __fish_complete_pids
end

function __oomwatchd_units
    systemctl list-units --all --plain --no-legend --type=service,scope 2>/dev/null |
        string replace -r ' .*' ''
end

# Of the configuration that is named on this line, or else of the usual one.
function __oomwatchd_rules
    set -l words (commandline -opc)
    set -l config
    for i in (seq 2 (count $words))
        switch $words[$i]
            case -c --config
                set config $words[(math $i + 1)]
            case '--config=*'
                set config (string replace -- --config= '' $words[$i])
        end
    end
    set config (string replace -r '^~/' $HOME/ -- $config)
    set -l names ($words[1] check --rules $config 2>/dev/null)
    and printf '%s\n' $names
end

function __oomwatchd_incident_ids
    set -l state /var/lib/oomwatchd
    set -q STATE_DIRECTORY; and set state $STATE_DIRECTORY
    for file in $state/incidents/*.json
        string replace -r '.*/(.*)\.json$' '$1' -- $file
    end
end

function __oomwatchd_incidents
    echo last
    __oomwatchd_incident_ids
end

# Processes that have been killed: `why` is asked about these.
function __oomwatchd_dead_pids
    __oomwatchd_incident_ids | string split -f 2 -- -
end

complete -c oomwatchd -f
complete -c oomwatchd -n '__oomwatchd_at 0' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_at 0' -l version -d 'show the version'
complete -c oomwatchd -n '__oomwatchd_at 0' -a run -d 'the daemon, in the foreground'
complete -c oomwatchd -n '__oomwatchd_in run' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in run' -s c -l config -x -a '(__oomwatchd_yaml_files)' -d 'the configuration'
complete -c oomwatchd -n '__oomwatchd_in run' -l dry-run -d 'say what would be set, and write nothing anywhere'
complete -c oomwatchd -n '__oomwatchd_at 0' -a check -d 'all faults and warnings of the configuration, and what each rule matches now'
complete -c oomwatchd -n '__oomwatchd_in check' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in check' -l json -d 'all of it, for programs'
complete -c oomwatchd -n '__oomwatchd_in check' -l rules -d 'only the names of the rules, one on a line'
complete -c oomwatchd -n '__oomwatchd_at 1 check' -a '(__oomwatchd_yaml_files)' -d 'the configuration'
complete -c oomwatchd -n '__oomwatchd_at 0' -a explain -d 'which rule decides about a process, and why the others do not'
complete -c oomwatchd -n '__oomwatchd_in explain' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in explain' -s c -l config -x -a '(__oomwatchd_yaml_files)' -d 'the configuration'
complete -c oomwatchd -n '__oomwatchd_in explain' -l json -d 'all of it, for programs'
complete -c oomwatchd -n '__oomwatchd_at 1 explain' -a '(__oomwatchd_pids)' -d 'the process'
complete -c oomwatchd -n '__oomwatchd_at 0' -a audit -d 'which killers can still take what the rules match, and what would help'
complete -c oomwatchd -n '__oomwatchd_in audit' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in audit' -l rule -x -a '(__oomwatchd_rules)' -d 'only what this rule matches'
complete -c oomwatchd -n '__oomwatchd_in audit' -l pid -x -a '(__oomwatchd_pids)' -d 'only this process'
complete -c oomwatchd -n '__oomwatchd_in audit' -s c -l config -x -a '(__oomwatchd_yaml_files)' -d 'the configuration'
complete -c oomwatchd -n '__oomwatchd_in audit' -l json -d 'a list, for programs'
complete -c oomwatchd -n '__oomwatchd_at 0' -a rank -d 'the order in which the kernel would kill now, with the arithmetic'
complete -c oomwatchd -n '__oomwatchd_in rank' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in rank' -l all -d 'every process, also those that are never picked'
complete -c oomwatchd -n '__oomwatchd_in rank' -l json -d 'a list in order of death'
complete -c oomwatchd -n '__oomwatchd_in rank' -s c -l config -x -a '(__oomwatchd_yaml_files)' -d 'whose rules are named'
complete -c oomwatchd -n '__oomwatchd_at 0' -a top -d 'a live view in the terminal'
complete -c oomwatchd -n '__oomwatchd_in top' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in top' -l interval -x -a '(__oomwatchd_nothing)' -d 'how often all is read'
complete -c oomwatchd -n '__oomwatchd_in top' -l once -d 'print one frame and end, as where there is no terminal'
complete -c oomwatchd -n '__oomwatchd_in top' -s c -l config -x -a '(__oomwatchd_yaml_files)' -d 'whose rules are shown'
complete -c oomwatchd -n '__oomwatchd_at 0' -a status -d 'what the running daemon holds'
complete -c oomwatchd -n '__oomwatchd_in status' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in status' -l json -d 'all of it, for programs'
complete -c oomwatchd -n '__oomwatchd_in status' -l all -d 'all processes, not only the largest'
complete -c oomwatchd -n '__oomwatchd_at 0' -a incidents -d 'the kills there were, and all that is known of each'
complete -c oomwatchd -n '__oomwatchd_in incidents' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in incidents' -l html -x -a '(__oomwatchd_files)' -d 'write a page that stands alone, with charts'
complete -c oomwatchd -n '__oomwatchd_in incidents' -l json -d 'for programs'
complete -c oomwatchd -n '__oomwatchd_at 1 incidents' -a 'list show' -d 'all of them'
complete -c oomwatchd -n '__oomwatchd_at 2 incidents' -a '(__oomwatchd_incidents)' -d 'which to show'
complete -c oomwatchd -n '__oomwatchd_at 0' -a why -d 'whether a process, a unit or a cgroup was killed for want of memory, and by whom'
complete -c oomwatchd -n '__oomwatchd_in why' -s h -l help -d 'show what it takes'
complete -c oomwatchd -n '__oomwatchd_in why' -l pid -x -a '(__oomwatchd_dead_pids)' -d 'a process that has ended'
complete -c oomwatchd -n '__oomwatchd_in why' -l unit -x -a '(__oomwatchd_units)' -d 'a systemd unit, of the system or a user'
complete -c oomwatchd -n '__oomwatchd_in why' -l cgroup -x -a '(__oomwatchd_cgroups)' -d 'a cgroup with all below it'
complete -c oomwatchd -n '__oomwatchd_in why' -l since -x -a '(__oomwatchd_nothing)' -d 'how far back to look'
complete -c oomwatchd -n '__oomwatchd_in why' -l wait -x -a '(__oomwatchd_nothing)' -d 'how long to wait for an incident to be written'
complete -c oomwatchd -n '__oomwatchd_in why' -l json -d 'the incident, or null'
