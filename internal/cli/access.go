package cli

import (
	"errors"

	"singlegate/gateway/admin"
	"singlegate/internal/config"
)

// accessOf reads the tokens of the admin address.
func accessOf(a config.Admin) (admin.Access, error) {
	access := admin.Access{Hosts: a.Hosts}
	var errs []error
	read := func(file string, token *string) {
		if file != "" {
			var err error
			*token, err = admin.ReadToken(file)
			errs = append(errs, err)
		}
	}
	read(a.TokenFile, &access.Token)
	read(a.WriteTokenFile, &access.WriteToken)
	if access.Token != "" && access.Token == access.WriteToken {
		errs = append(errs, errors.New("admin: token_file and write_token_file hold the same token; give each its own, or only write_token_file"))
	}
	return access, errors.Join(errs...)
}

// tokenOf is the token that a command shows: of the file that was named, else the
// one of the config that lets do most of those that may be read here. Without any
// the gateway says whether it wants one.
func tokenOf(named string, a config.Admin) (string, error) {
	if named != "" {
		return admin.ReadToken(named)
	}
	for _, file := range []string{a.WriteTokenFile, a.TokenFile} {
		if file != "" {
			if token, err := admin.ReadToken(file); err == nil {
				return token, nil
			}
		}
	}
	return "", nil
}
