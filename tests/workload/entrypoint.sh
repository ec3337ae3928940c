# The workload of tests/boots/workload.rs: serves what it sees as lines KEY=VALUE; what it cannot say is empty. It judges nothing.
www=/tmp/nvflare/www; mkdir -p $www
say() { printf '%s=%s\n' "$1" "$(echo "$2" | tr -s '\n' ' ' | sed 's/ *$//')"; }
status() { sed -n "s/^$1:[[:space:]]*//p" /proc/self/status | tr -s '\t' ' '; }
# Folders that take a new file, and files that take an empty addition. The kernel's own file systems are not tried.
writable() {
    find / \( -path /proc -o -path /sys \) -prune -o -type d -print | while read -r folder; do
        if (: >"$folder/.probe") 2>/dev/null; then rm "$folder/.probe"; echo "$folder"; fi
    done
    find / \( -path /proc -o -path /sys -o -path $www \) -prune -o -type f -print | while read -r file; do
        (: >>"$file") 2>/dev/null && echo "$file"
    done
}

{
    say user "$(id -u):$(id -g):$(id -G)"
    say capabilities "$(status CapEff) $(status CapBnd)"
    say no_new_privileges "$(status NoNewPrivs)"
    say seccomp "$(status Seccomp)"
    say arguments "$0 $*"
    say variable "$ACME"
    say folder "$(pwd)"
    say root "$(ls /)"
    say run "$(ls /run)"
    say kit "$(ls /user_config/nvflare/startup)"
    say key "$(grep -c 'BEGIN.*PRIVATE KEY' /user_config/nvflare/startup/client.key)"
    say opt "$(ls /opt /opt/nvflare)"
    say hosts "$(grep -w server1 /etc/hosts)"
    say user_data "$(cat /user_data/rows.csv)"
    say p6 "$(cat /opt/nvflare/data/rows.csv)"
    say program "$(/user_data/busybox echo it runs 2>&1)"
    say program_in_tmp "$(cp /bin/busybox /tmp/busybox && /tmp/busybox echo it runs 2>&1)"
    say device "$(cat /user_data/zero 2>&1 | head -c 64 | tr '\0' 0)"
    say agent "$([ -S /run/flare-cvm/agent.sock ] && [ -w /run/flare-cvm/agent.sock ] && echo socket)"
    rm -f /tmp/busybox
    say writable "$(writable)"
    say executable "$(awk '$4 ~ /^rw/ && $4 !~ /noexec/ { print $2 }' /proc/mounts)"
    say complete yes
} >$www/report.new 2>$www/errors
mv $www/report.new $www/report

# A file of the export, read again and again; the last answer is a file too.
count=0; while count=$((count + 1)); do
    content=$(cat /user_data/mnt/rows.csv 2>&1)
    printf 'count=%s\ncode=%s\ncontent=%s\n' $count $? "$content" >$www/nfs.new
    mv $www/nfs.new $www/nfs
    sleep 1
done &
exec busybox httpd -f -p "$1" -h $www
