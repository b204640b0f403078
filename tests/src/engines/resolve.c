/* Asks for names as every program that is linked with musl does:
 *   resolve NAME         prints the addresses of a name
 *   resolve -x ADDRESS   prints the name of an address
 */
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int ask(const char *what, int backwards)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = backwards ? AI_NUMERICHOST : 0 };
    struct addrinfo *found;
    int error = getaddrinfo(what, NULL, &hints, &found);
    for (; !error && found; found = found->ai_next) {
        char text[NI_MAXHOST];
        int how = backwards ? NI_NAMEREQD : NI_NUMERICHOST;
        error = getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, how);
        if (!error)
            puts(text);
    }
    if (error)
        fprintf(stderr, "%s: %s\n", what, gai_strerror(error));
    return error != 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && !strcmp(argv[1], "-x"))
        return ask(argv[2], 1);
    return argc == 2 ? ask(argv[1], 0) : 2;
}
